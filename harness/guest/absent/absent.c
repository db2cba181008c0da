// SPDX-License-Identifier: GPL-2.0
/*
 * A user of memory that is absent from the direct map, which knows what it has
 * written there, for make stress: does it survive what the machine goes through?
 *
 * pages: N takes an area of that many pages and fills it; 0 frees it.
 * check: reads as "TAKEN INTACT ABSENT, FRESH ZERO ABSENT": of the pages taken,
 *	and of as many that are taken now and freed again.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#define PAGE_WORDS	(PAGE_SIZE / sizeof(u64))

static u64 *area;
static unsigned int nr_pages;

static u64 *take(unsigned int nr)
{
	return __vmalloc(nr * PAGE_SIZE, GFP_KERNEL | __GFP_UNMAPPED);
}

/* No two words are the same */
static u64 word(unsigned long i)
{
	return (i + 1) * 0x9e3779b97f4a7c15;
}

static unsigned int count_good(const u64 *from, unsigned int nr, bool filled)
{
	unsigned int i, good = 0;
	unsigned long k;

	for (i = 0; i < nr; i++) {
		for (k = i * PAGE_WORDS; k < (i + 1) * PAGE_WORDS; k++)
			if (from[k] != (filled ? word(k) : 0))
				break;
		good += k == (i + 1) * PAGE_WORDS;
	}

	return good;
}

static unsigned int count_absent(const u64 *from, unsigned int nr)
{
	unsigned int i, absent = 0;
	u64 value;

	for (i = 0; i < nr; i++) {
		struct page *page = vmalloc_to_page(from + i * PAGE_WORDS);

		absent += copy_from_kernel_nofault(&value, page_address(page),
						   sizeof(value)) == -EFAULT;
	}

	return absent;
}

static int pages_set(const char *val, const struct kernel_param *kp)
{
	unsigned long i;
	unsigned int nr;
	int err;

	err = kstrtouint(val, 0, &nr);
	if (err)
		return err;

	vfree(area);
	nr_pages = 0;
	area = nr ? take(nr) : NULL;
	if (nr && !area)
		return -ENOMEM;
	nr_pages = nr;
	for (i = 0; i < nr_pages * PAGE_WORDS; i++)
		area[i] = word(i);

	return 0;
}

static int check_get(char *buf, const struct kernel_param *kp)
{
	u64 *fresh = take(nr_pages);
	unsigned int nr_fresh = fresh ? nr_pages : 0;
	int len;

	len = sysfs_emit(buf, "%u %u %u, %u %u %u\n", nr_pages,
			 count_good(area, nr_pages, true),
			 count_absent(area, nr_pages), nr_fresh,
			 count_good(fresh, nr_fresh, false),
			 count_absent(fresh, nr_fresh));
	vfree(fresh);

	return len;
}

static const struct kernel_param_ops pages_ops = { .set = pages_set };
static const struct kernel_param_ops check_ops = { .get = check_get };
module_param_cb(pages, &pages_ops, NULL, 0200);
module_param_cb(check, &check_ops, NULL, 0400);

static int __init absent_init(void)
{
	return 0;
}
module_init(absent_init);

static void __exit absent_exit(void)
{
	vfree(area);
}
module_exit(absent_exit);

MODULE_DESCRIPTION("Memory absent from the direct map, with known contents");
MODULE_LICENSE("GPL");
