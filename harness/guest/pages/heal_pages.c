// SPDX-License-Identifier: GPL-2.0
/*
 * What make heal cannot do from user space. The parameters are commands, so
 * that all that loading a module does is over before anything is counted:
 *
 * wc: 1 takes buffers and makes them write-combining, as graphics drivers do,
 *	which splits the direct map; 0 sets them back and frees them.
 * fill: N takes all free memory but one of N chunks of 16 KiB, so that there
 *	is no free block of 2 MiB; 0 frees all that was taken.
 * request: "plain|unmapped ORDER NUMBER" asks for that many pages, then frees
 *	them all, or what runs next might wake the OOM killer. Reads as
 *	NUMBER OK P50 P99 MAX P50 P99 MAX, times in ns of those that got memory,
 *	then of those that did not.
 *
 * Loads into any 7.3 kernel, as it uses nothing that is not exported.
 */
#include <linux/bitmap.h>
#include <linux/gfp.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/set_memory.h>
#include <linux/sort.h>
#include <linux/workqueue.h>

#define BLOCK_ORDER	9
#define BLOCK_PAGES	BIT_U32(BLOCK_ORDER)
#define NR_BUFFERS	64
#define MAX_BUFFER	64
#define NR_BLOCKS	8192
#define MAX_OTHERS	512
#define HOLE_PAGES	4
#define MAX_REQUESTS	10000

/* Write-combining buffers, of 4 to 64 pages */

static struct buffer {
	unsigned int	nr;
	bool		changed;
	struct page	*page[MAX_BUFFER];
} buffer[NR_BUFFERS];

/* The first half of the buffers are arrays of pages, the others are ranges */
static bool is_array(const struct buffer *b)
{
	return b < buffer + NR_BUFFERS / 2;
}

/* Blocks that array buffers have a page of, by their number modulo 16 GiB */
static DECLARE_BITMAP(blocks, NR_BLOCKS);

static void free_list_pages(struct list_head *pages, unsigned int order)
{
	struct page *page, *next;
	unsigned int i = 0;

	list_for_each_entry_safe(page, next, pages, lru) {
		list_del(&page->lru);
		__free_pages(page, order);
		if (!(++i % 1024))
			cond_resched();
	}
}

/*
 * Single pages, as they lie in the holes of aged memory: each of another block,
 * unless that would take too long.
 */
static int take_pages(struct buffer *b, unsigned int nr)
{
	unsigned int nr_others = 0;
	struct page *page;
	LIST_HEAD(others);

	while (b->nr < nr) {
		page = alloc_page(GFP_KERNEL);
		if (!page)
			break;
		if (test_and_set_bit(page_to_pfn(page) / BLOCK_PAGES % NR_BLOCKS, blocks) &&
		    nr_others++ < MAX_OTHERS)
			list_add(&page->lru, &others);
		else
			b->page[b->nr++] = page;
		cond_resched();
	}
	free_list_pages(&others, 0);

	return b->nr == nr ? 0 : -ENOMEM;
}

/* The middle of a 2 MiB block, whose other pages are free to be used by others */
static int take_range(struct buffer *b, unsigned int nr)
{
	unsigned int i, first = (BLOCK_PAGES - nr) / 2;
	struct page *page = alloc_pages(GFP_KERNEL, BLOCK_ORDER);

	if (!page)
		return -ENOMEM;

	split_page(page, BLOCK_ORDER);
	for (i = 0; i < BLOCK_PAGES; i++, page++) {
		if (i >= first && i < first + nr)
			b->page[b->nr++] = page;
		else
			__free_page(page);
	}

	return 0;
}

static unsigned long first_address(const struct buffer *b)
{
	return (unsigned long)page_address(b->page[0]);
}

static int take_buffer(struct buffer *b, unsigned int nr)
{
	int err;

	err = is_array(b) ? take_pages(b, nr) : take_range(b, nr);
	if (err)
		return err;

	err = is_array(b) ? set_pages_array_wc(b->page, nr) :
			    set_memory_wc(first_address(b), nr);
	/* Some may be changed: better lose them than free them so */
	if (err)
		b->nr = 0;
	else
		b->changed = true;

	return err;
}

static void free_buffer(struct buffer *b)
{
	int err = 0;

	if (b->changed)
		err = is_array(b) ? set_pages_array_wb(b->page, b->nr) :
				    set_memory_wb(first_address(b), b->nr);
	while (b->nr && !WARN_ON_ONCE(err))
		__free_page(b->page[--b->nr]);
	b->nr = 0;
	b->changed = false;
}

static void free_buffers(void)
{
	unsigned int i;

	for (i = 0; i < NR_BUFFERS; i++)
		free_buffer(&buffer[i]);
}

static int wc_set(const char *val, const struct kernel_param *kp)
{
	unsigned int i;
	bool on;
	int err;

	err = kstrtobool(val, &on);
	if (err)
		return err;

	free_buffers();
	bitmap_zero(blocks, NR_BLOCKS);
	for (i = 0; on && i < NR_BUFFERS; i++) {
		err = take_buffer(&buffer[i], 4 << i % 5);
		if (err) {
			free_buffers();
			return err;
		}
	}

	return 0;
}

/* Memory without a free block of 2 MiB */

static LIST_HEAD(filled);

/*
 * Holes are freed at once, so memory never runs short, and nothing has to be
 * reclaimed. They lie between pages in use, so they do not merge.
 */
static void fill_zone(gfp_t gfp, unsigned int every)
{
	unsigned int i, order;
	struct page *page;

	for (order = MAX_PAGE_ORDER; order > ilog2(HOLE_PAGES); order--) {
		while ((page = alloc_pages(gfp, order))) {
			split_page(page, order);
			for (i = 0; i < 1U << order; i++, page++) {
				if (page_to_pfn(page) / HOLE_PAGES % every)
					list_add(&page->lru, &filled);
				else
					__free_page(page);
			}
			cond_resched();
		}
	}
}

/* On each CPU, for the pages that its lists hold */
static long fill_cpu(void *every)
{
	/*
	 * Nothing is reclaimed or compacted, and no thread woken to do so. The
	 * lower zone has a reserve, which only those get who ask for it.
	 */
	fill_zone(__GFP_NOWARN, *(unsigned int *)every);
	fill_zone(__GFP_NOWARN | __GFP_DMA32, *(unsigned int *)every);

	return 0;
}

static int fill_set(const char *val, const struct kernel_param *kp)
{
	unsigned int cpu, every;
	int err;

	err = kstrtouint(val, 0, &every);
	if (err)
		return err;

	if (!every) {
		free_list_pages(&filled, 0);
		return 0;
	}
	for_each_online_cpu(cpu)
		work_on_cpu(cpu, fill_cpu, &every);

	return 0;
}

/* Requests */

#ifdef CONFIG_UNMAPPED_ALLOC
#define GFP_UNMAPPED_KERNEL	(GFP_KERNEL | __GFP_UNMAPPED)
#else
#define GFP_UNMAPPED_KERNEL	0
#endif

/* Times of requests that got memory from the start on, of others from the end */
static u64 sample[MAX_REQUESTS];
static unsigned int nr_ok, nr_failed;

static void make_requests(gfp_t gfp, unsigned int order, unsigned int nr)
{
	struct page *page;
	LIST_HEAD(held);
	u64 t;

	nr_ok = 0;
	nr_failed = 0;
	while (nr--) {
		t = ktime_get_ns();
		page = alloc_pages(gfp, order);
		t = ktime_get_ns() - t;
		if (page) {
			list_add(&page->lru, &held);
			sample[nr_ok++] = t;
		} else {
			sample[MAX_REQUESTS - ++nr_failed] = t;
		}
		cond_resched();
	}
	free_list_pages(&held, order);
}

static int request_set(const char *val, const struct kernel_param *kp)
{
	unsigned int order, nr;
	char kind[16];
	gfp_t gfp;

	if (sscanf(val, "%15s %u %u", kind, &order, &nr) != 3 ||
	    order > BLOCK_ORDER || nr > MAX_REQUESTS)
		return -EINVAL;
	if (!strcmp(kind, "plain"))
		gfp = GFP_KERNEL;
	else if (!strcmp(kind, "unmapped"))
		gfp = GFP_UNMAPPED_KERNEL;
	else
		return -EINVAL;
	if (!gfp)
		return -EOPNOTSUPP;
	/* Failures of large requests are results here */
	make_requests(gfp | __GFP_NOWARN, order, nr);

	return 0;
}

static int cmp_u64(const void *a, const void *b)
{
	return *(const u64 *)a < *(const u64 *)b ? -1 : *(const u64 *)a > *(const u64 *)b;
}

static int print_times(char *buf, int at, u64 *times, unsigned int nr)
{
	if (!nr)
		return sysfs_emit_at(buf, at, " 0 0 0");

	sort(times, nr, sizeof(*times), cmp_u64, NULL);
	return sysfs_emit_at(buf, at, " %llu %llu %llu", times[nr / 2],
			     times[nr * 99ULL / 100], times[nr - 1]);
}

static int request_get(char *buf, const struct kernel_param *kp)
{
	int at = sysfs_emit(buf, "%u %u", nr_ok + nr_failed, nr_ok);

	at += print_times(buf, at, sample, nr_ok);
	at += print_times(buf, at, sample + MAX_REQUESTS - nr_failed, nr_failed);

	return at + sysfs_emit_at(buf, at, "\n");
}

static const struct kernel_param_ops wc_ops = { .set = wc_set };
static const struct kernel_param_ops fill_ops = { .set = fill_set };
static const struct kernel_param_ops request_ops = {
	.set = request_set,
	.get = request_get,
};
module_param_cb(wc, &wc_ops, NULL, 0200);
module_param_cb(fill, &fill_ops, NULL, 0200);
module_param_cb(request, &request_ops, NULL, 0600);

static int __init heal_pages_init(void)
{
	return 0;
}
module_init(heal_pages_init);

static void __exit heal_pages_exit(void)
{
	free_buffers();
	free_list_pages(&filled, 0);
}
module_exit(heal_pages_exit);

MODULE_DESCRIPTION("Splits of the direct map, memory without large blocks, and requests");
MODULE_LICENSE("GPL");
