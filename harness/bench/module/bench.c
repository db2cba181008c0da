// SPDX-License-Identifier: GPL-2.0
/*
 * Paths that user space does not reach alone: their instructions are counted,
 * or they are only taken.
 *
 * For a guest under -icount shift=0, in which the TSC advances by one for each
 * instruction. Loads into any 7.3 kernel: what is not exported is looked up.
 * Prints lines "bench: NAME VALUE" and stays loaded until it is removed.
 */
#define pr_fmt(fmt) "bench: " fmt

#include <linux/folio_batch.h>
#include <linux/gfp.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sort.h>
#include <linux/vmalloc.h>

#include <asm/msr.h>

#define BLOCK_ORDER	9
#define BLOCK_PAGES	(1U << BLOCK_ORDER)
#define NR_BLOCKS	32
#define NR_PAIRS	1000
#define NR_REPEATS	41
#define NR_HELD		32
#define NR_AREAS	64
#define MAX_AREA_PAGES	16

static char *what = "pairs";
module_param(what, charp, 0);
MODULE_PARM_DESC(what, "pairs: allocate and free; absent, absent_singly: take 2 MiB out of the direct map; areas: hold areas with VM_FLUSH_RESET_PERMS; nothing: stay loaded");

static u64 sample[NR_REPEATS];

static int cmp_u64(const void *a, const void *b)
{
	return *(const u64 *)a < *(const u64 *)b ? -1 : *(const u64 *)a > *(const u64 *)b;
}

/* Divided by @per, with two decimals */
static void report(const char *name, unsigned int nr, unsigned int per)
{
	u64 min, med;

	sort(sample, nr, sizeof(sample[0]), cmp_u64, NULL);
	min = sample[0] * 100 / per;
	med = sample[nr / 2] * 100 / per;
	pr_info("%s_min %llu.%02llu\n", name, min / 100, min % 100);
	pr_info("%s %llu.%02llu\n", name, med / 100, med % 100);
}

/* The same page again and again */
static u64 pairs(unsigned int order)
{
	unsigned int i;
	u64 t = rdtsc();

	for (i = 0; i < NR_PAIRS; i++)
		__free_pages(alloc_pages(GFP_KERNEL, order), order);

	return rdtsc() - t;
}

/* Freed as the page cache and exiting processes do */
static u64 folios(unsigned int order)
{
	struct folio_batch batch;
	unsigned int i, j;
	u64 t = rdtsc();

	for (i = 0; i < NR_PAIRS / FOLIO_BATCH_SIZE; i++) {
		folio_batch_init(&batch);
		for (j = 0; j < FOLIO_BATCH_SIZE; j++)
			folio_batch_add(&batch, folio_alloc(GFP_KERNEL, order));
		folios_put(&batch);
	}

	return rdtsc() - t;
}

static u64 nothing(unsigned int order)
{
	unsigned int i;
	u64 t = rdtsc();

	for (i = 0; i < NR_PAIRS; i++)
		barrier();

	return rdtsc() - t;
}

static void bench_one(const char *name, u64 (*fn)(unsigned int), int order,
		      unsigned int per)
{
	char full[32];
	unsigned int i;

	for (i = 0; i < 5; i++)
		fn(order);
	for (i = 0; i < NR_REPEATS; i++) {
		cond_resched();
		sample[i] = fn(order);
	}
	snprintf(full, sizeof(full), "%s_%u", name, order);
	report(full, NR_REPEATS, per);
}

/*
 * Orders above those of the pcp lists go to the free lists, where the work
 * depends on what there is to merge with. Have nothing to merge with: take
 * chunks, and free those whose buddy is taken as well.
 */
static struct page *held[NR_HELD];

static void hold_buddies(unsigned int order)
{
	unsigned int i, k;

	for (i = 0; i < NR_HELD; i++)
		held[i] = alloc_pages(GFP_KERNEL, order);

	for (i = 0; i < NR_HELD; i++) {
		if (!held[i] || page_to_pfn(held[i]) & (1UL << order))
			continue;
		for (k = 0; k < NR_HELD; k++)
			if (held[k] == held[i] + (1UL << order))
				break;
		if (k == NR_HELD)
			continue;
		__free_pages(held[i], order);
		held[i] = NULL;
	}
}

static void release_buddies(unsigned int order)
{
	unsigned int i;

	for (i = 0; i < NR_HELD; i++)
		if (held[i])
			__free_pages(held[i], order);
}

static int bench_pairs(void)
{
	static const int orders[] = { 0, 3, 4, 8, 9 };
	unsigned int i;

	bench_one("nothing", nothing, 0, NR_PAIRS);
	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		hold_buddies(orders[i]);
		bench_one("pair", pairs, orders[i], NR_PAIRS);
		release_buddies(orders[i]);
	}
	bench_one("folios", folios, 0, NR_PAIRS / FOLIO_BATCH_SIZE * FOLIO_BATCH_SIZE);

	return 0;
}

static unsigned long (*lookup_name)(const char *name);

static int find_lookup_name(void)
{
	struct kprobe kp = { .symbol_name = "kallsyms_lookup_name" };
	int err = register_kprobe(&kp);

	if (err)
		return err;
	lookup_name = (void *)kp.addr;
	unregister_kprobe(&kp);

	return 0;
}

static int (*set_invalid)(struct page *page);
static int (*set_valid)(struct page *page, unsigned int nr, bool valid);
static void (*flush_range)(unsigned long start, unsigned long end);

/* As memfd_secret() of the base does, page by page */
static u64 absent_singly(struct page *page)
{
	unsigned long addr = (unsigned long)page_address(page);
	unsigned int i;
	u64 t = rdtsc();

	for (i = 0; i < BLOCK_PAGES; i++, addr += PAGE_SIZE) {
		set_invalid(page + i);
		flush_range(addr, addr + PAGE_SIZE);
	}

	return rdtsc() - t;
}

/* As unmapped_alloc does */
static u64 absent(struct page *page)
{
	unsigned long addr = (unsigned long)page_address(page);
	u64 t = rdtsc();

	set_valid(page, BLOCK_PAGES, false);
	flush_range(addr, addr + BLOCK_PAGES * PAGE_SIZE);

	return rdtsc() - t;
}

static int bench_absent(const char *name, u64 (*fn)(struct page *page))
{
	static struct page *page[NR_BLOCKS];
	int i, nr, err;

	err = find_lookup_name();
	if (err)
		return err;
	set_invalid = (void *)lookup_name("set_direct_map_invalid_noflush");
	set_valid = (void *)lookup_name("set_direct_map_valid_noflush");
	flush_range = (void *)lookup_name("flush_tlb_kernel_range");
	if (!set_invalid || !set_valid || !flush_range)
		return -ENOENT;

	/* Held to the end: a block that was split stays split */
	for (nr = 0; nr < NR_BLOCKS; nr++) {
		page[nr] = alloc_pages(GFP_KERNEL, BLOCK_ORDER);
		if (!page[nr])
			break;
		sample[nr] = fn(page[nr]);
		cond_resched();
	}
	for (i = 0; i < nr; i++) {
		set_valid(page[i], BLOCK_PAGES, true);
		__free_pages(page[i], BLOCK_ORDER);
	}
	if (!nr)
		return -ENOMEM;
	pr_info("%s_first %llu\n", name, sample[0]);
	report(name, nr, 1);
	pr_info("%s_max %llu\n", name, sample[nr - 1]);

	return 0;
}

/*
 * Areas whose pages get default permissions when they are freed, as Hyper-V has
 * for its hypercall page. Half of them are made read-only meanwhile: those who
 * do so are to ask for absent memory where there is any.
 */
#ifdef CONFIG_UNMAPPED_ALLOC
#define GFP_READ_ONLY	(GFP_KERNEL | __GFP_UNMAPPED)
#else
#define GFP_READ_ONLY	GFP_KERNEL
#endif

static void *area[NR_AREAS];

static int hold_areas(void)
{
	void *(*alloc)(unsigned long size, unsigned long align,
		       unsigned long start, unsigned long end, gfp_t gfp,
		       pgprot_t prot, unsigned long vm_flags, int node,
		       const void *caller);
	int (*set_ro)(unsigned long addr, int nr);
	unsigned int i, nr;
	int err;

	err = find_lookup_name();
	if (err)
		return err;
	alloc = (void *)lookup_name("__vmalloc_node_range_noprof");
	set_ro = (void *)lookup_name("set_memory_ro");
	if (!alloc || !set_ro)
		return -ENOENT;

	for (i = 0; i < NR_AREAS; i++) {
		nr = 1 + i / 2 % MAX_AREA_PAGES;
		area[i] = alloc(nr * PAGE_SIZE, 1, VMALLOC_START, VMALLOC_END,
				i % 2 ? GFP_READ_ONLY : GFP_KERNEL, PAGE_KERNEL,
				VM_FLUSH_RESET_PERMS,
				NUMA_NO_NODE, __builtin_return_address(0));
		if (!area[i])
			return -ENOMEM;
		memset(area[i], 1, nr * PAGE_SIZE);
		if (i % 2) {
			err = set_ro((unsigned long)area[i], nr);
			if (err)
				return err;
		}
	}

	return 0;
}

static void free_areas(void)
{
	unsigned int i;

	for (i = 0; i < NR_AREAS; i++)
		vfree(area[i]);
}

static int __init bench_init(void)
{
	if (!strcmp(what, "pairs"))
		return bench_pairs();
	if (!strcmp(what, "absent"))
		return bench_absent(what, absent);
	if (!strcmp(what, "absent_singly"))
		return bench_absent(what, absent_singly);
	if (!strcmp(what, "areas")) {
		int err = hold_areas();

		if (err)
			free_areas();
		return err;
	}
	if (!strcmp(what, "nothing"))
		return 0;

	return -EINVAL;
}
module_init(bench_init);

static void __exit bench_exit(void)
{
	free_areas();
}
module_exit(bench_exit);

MODULE_DESCRIPTION("Instruction counts of page allocation, and direct map changes");
MODULE_LICENSE("GPL");
