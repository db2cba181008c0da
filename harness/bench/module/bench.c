// SPDX-License-Identifier: GPL-2.0
/*
 * Paths that user space does not reach alone: their instructions are counted,
 * or they are only taken.
 *
 * For a guest under -icount shift=0, in which the TSC advances by one for each
 * instruction. Loads into any 7.3 kernel: what is not exported is looked up.
 * Prints lines "bench: NAME VALUE" and stays loaded until it is removed; some
 * figures are taken when parameters are read, in nanoseconds.
 */
#define pr_fmt(fmt) "bench: " fmt

#include <linux/folio_batch.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/timekeeping.h>
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
MODULE_PARM_DESC(what, "pairs: allocate and free; absent, absent_singly, absent_batched, absent_limit: take 2 MiB out of the direct map; zero: clear 2 MiB; refill: of unmapped_alloc; areas: hold areas with VM_FLUSH_RESET_PERMS; chain: hold pages for laps; nothing: stay loaded");

static bool wall;
module_param(wall, bool, 0);
MODULE_PARM_DESC(wall, "zero and refill count nanoseconds, not instructions");

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

/* The slab allocator refuses what wants absent memory, and so looks at the flags */
static u64 objects(unsigned int size)
{
	unsigned int i;
	u64 t = rdtsc();

	for (i = 0; i < NR_PAIRS; i++)
		kfree(kmalloc(size, GFP_KERNEL));

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
	bench_one("kmalloc", objects, 64, NR_PAIRS);

	return 0;
}

static unsigned long (*lookup_name)(const char *name);

static int find_lookup_name(void)
{
	/* Not armed: ftrace keeps the trampoline of armed ones for ever */
	struct kprobe kp = { .symbol_name = "kallsyms_lookup_name", .flags = KPROBE_FLAG_DISABLED };
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

/* As the peer does: flushed once */
static u64 absent_batched(struct page *page)
{
	unsigned long addr = (unsigned long)page_address(page);
	unsigned int i;
	u64 t = rdtsc();

	for (i = 0; i < BLOCK_PAGES; i++)
		set_invalid(page + i);
	flush_range(addr, addr + BLOCK_PAGES * PAGE_SIZE);

	return rdtsc() - t;
}

/*
 * Nothing but what there is no doing without: one write and one flush. Only for
 * blocks that have been absent before, so that a PMD maps them.
 */
static u64 absent_limit(struct page *page)
{
	unsigned long addr = (unsigned long)page_address(page);
	unsigned int level;
	pte_t *pmd, was;
	u64 t;

	set_valid(page, BLOCK_PAGES, false);
	set_valid(page, BLOCK_PAGES, true);
	pmd = lookup_address(addr, &level);
	if (WARN_ON(!pmd || level != PG_LEVEL_2M))
		return 0;
	was = *pmd;

	t = rdtsc();
	WRITE_ONCE(*pmd, __pte(pte_val(was) & ~_PAGE_PRESENT));
	flush_range(addr, addr + BLOCK_PAGES * PAGE_SIZE);
	t = rdtsc() - t;

	WRITE_ONCE(*pmd, was);

	return t;
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

static u64 clock(void)
{
	return wall ? ktime_get_ns() : rdtsc();
}

static u64 zero_block(struct page *page)
{
	u64 t = clock();

	clear_pages(page_address(page), BLOCK_PAGES);

	return clock() - t;
}

static u64 zero_singly(struct page *page)
{
	unsigned int i;
	u64 t = clock();

	for (i = 0; i < BLOCK_PAGES; i++)
		clear_highpage(page + i);

	return clock() - t;
}

static int bench_zero(void)
{
	struct page *page = alloc_pages(GFP_KERNEL, BLOCK_ORDER);
	static u64 singly[NR_REPEATS];
	unsigned int i;

	if (!page)
		return -ENOMEM;
	zero_block(page);
	for (i = 0; i < NR_REPEATS; i++) {
		sample[i] = zero_block(page);
		singly[i] = zero_singly(page);
		cond_resched();
	}
	__free_pages(page, BLOCK_ORDER);
	report("zero_block", NR_REPEATS, 1);
	memcpy(sample, singly, sizeof(sample));
	report("zero_singly", NR_REPEATS, 1);

	return 0;
}

/*
 * The longest of as many requests for a page as there are in a block is the one
 * that takes a new block. And its parts, of a block that was got otherwise.
 */
#ifdef CONFIG_UNMAPPED_ALLOC
#define NR_REFILLS	NR_REPEATS

static u64 longest_request(struct page **page, u64 *hit)
{
	u64 t, max = 0, min = U64_MAX;
	unsigned int i;

	for (i = 0; i < BLOCK_PAGES; i++) {
		t = clock();
		page[i] = alloc_pages(GFP_KERNEL | __GFP_UNMAPPED, 0);
		t = clock() - t;
		max = max(max, t);
		min = min(min, t);
	}
	*hit = min;

	return max;
}

static int bench_refill(void)
{
	static const char * const parts[] = { "alloc", "zero", "unmap", "flush" };
	static u64 hit[NR_REFILLS], part[ARRAY_SIZE(parts)][NR_REFILLS];
	struct page **page, *block;
	unsigned long addr;
	char name[32];
	unsigned int i, k;
	u64 t[5];
	int err;

	err = find_lookup_name();
	if (err)
		return err;
	set_valid = (void *)lookup_name("set_direct_map_valid_noflush");
	flush_range = (void *)lookup_name("flush_tlb_kernel_range");
	page = kvcalloc(NR_REFILLS * BLOCK_PAGES, sizeof(*page), GFP_KERNEL);
	if (!set_valid || !flush_range || !page)
		return -ENOENT;

	/* One in use all the time: whatever is done for the first is done */
	for (i = 0; i < NR_REFILLS; i++) {
		sample[i] = longest_request(page + i * BLOCK_PAGES, &hit[i]);
		cond_resched();
	}
	for (i = 0; i < NR_REFILLS * BLOCK_PAGES; i++)
		if (page[i])
			__free_page(page[i]);
	kvfree(page);
	report("refill", NR_REFILLS, 1);
	memcpy(sample, hit, sizeof(sample));
	report("refill_hit", NR_REFILLS, 1);

	for (i = 0; i < NR_REFILLS; i++) {
		t[0] = clock();
		block = alloc_pages(GFP_KERNEL, BLOCK_ORDER);
		t[1] = clock();
		if (!block)
			return -ENOMEM;
		addr = (unsigned long)page_address(block);
		clear_pages((void *)addr, BLOCK_PAGES);
		t[2] = clock();
		set_valid(block, BLOCK_PAGES, false);
		t[3] = clock();
		flush_range(addr, addr + BLOCK_PAGES * PAGE_SIZE);
		t[4] = clock();
		set_valid(block, BLOCK_PAGES, true);
		__free_pages(block, BLOCK_ORDER);
		for (k = 0; k < ARRAY_SIZE(parts); k++)
			part[k][i] = t[k + 1] - t[k];
		cond_resched();
	}
	for (k = 0; k < ARRAY_SIZE(parts); k++) {
		memcpy(sample, part[k], sizeof(sample));
		snprintf(name, sizeof(name), "refill_%s", parts[k]);
		report(name, NR_REFILLS, 1);
	}

	return 0;
}
#else
static int bench_refill(void)
{
	return -EOPNOTSUPP;
}
#endif

/*
 * A chain through pages of the direct map at random, and one through the same
 * pages in the vmalloc area, where they are mapped by 4 KiB whatever happens to
 * the direct map. All pages are held from the beginning. Among them lie some
 * that are free once memory has aged: of the pages that take turns in NR_PIPES
 * pipes those of each HOLE_EVERY'th pipe, freed pipe by pipe.
 */
#define CHAIN_PAGES	(1U << 18)
#define NR_PIPES	1024
#define HOLE_EVERY	8
#define LINE_BYTES	64
#define LINK_WORDS	(LINE_BYTES / sizeof(void *))

static void (*flush_all)(void);
static struct page **hole, **chain;
static unsigned int nr_holes, nr_chain;
static void **chain_at, **alias_at;
static void *alias;

static bool is_hole(unsigned int i)
{
	return i % NR_PIPES % HOLE_EVERY == 0;
}

/* Each page has its links in another cache line than the next one */
static void **link_in(void *page, unsigned int i)
{
	return (void **)page + i * LINK_WORDS % (PAGE_SIZE / sizeof(void *));
}

static void **link_of(unsigned int i)
{
	return link_in(page_address(chain[i]), i);
}

static void **alias_of(unsigned int i)
{
	return link_in(alias + i * PAGE_SIZE, i) + 1;
}

static void free_chain(void)
{
	if (alias)
		vunmap(alias);
	while (nr_chain)
		__free_page(chain[--nr_chain]);
	while (nr_holes)
		__free_page(hole[--nr_holes]);
	kvfree(chain);
	kvfree(hole);
}

static void link_chain(unsigned int *order)
{
	unsigned int i, next;

	for (i = 0; i < nr_chain; i++)
		order[i] = i;
	for (i = nr_chain - 1; i; i--)
		swap(order[i], order[get_random_u32_below(i + 1)]);
	for (i = 0; i < nr_chain; i++) {
		next = order[(i + 1) % nr_chain];
		*link_of(order[i]) = link_of(next);
		link_of(order[i])[1] = alias_of(next);
	}
	chain_at = link_of(order[0]);
	alias_at = alias_of(order[0]);
}

static int hold_chain(void)
{
	unsigned int i, *order;
	int err;

	err = find_lookup_name();
	if (err)
		return err;
	flush_all = (void *)lookup_name("flush_tlb_all");
	if (!flush_all)
		return -ENOENT;

	chain = kvcalloc(CHAIN_PAGES, sizeof(*chain), GFP_KERNEL);
	hole = kvcalloc(CHAIN_PAGES, sizeof(*hole), GFP_KERNEL);
	order = kvcalloc(CHAIN_PAGES, sizeof(*order), GFP_KERNEL);
	if (!chain || !hole || !order)
		goto err;
	for (i = 0; i < CHAIN_PAGES; i++) {
		struct page *page = alloc_page(GFP_KERNEL);

		if (!page)
			goto err;
		if (is_hole(i))
			hole[nr_holes++] = page;
		else
			chain[nr_chain++] = page;
		if (i % BLOCK_PAGES == 0)
			cond_resched();
	}
	alias = vmap(chain, nr_chain, VM_MAP, PAGE_KERNEL);
	if (!alias)
		goto err;
	link_chain(order);
	kvfree(order);

	return 0;
err:
	kvfree(order);
	free_chain();
	return -ENOMEM;
}

/*
 * From empty TLBs, so that each step is a walk of the page tables. An emulated
 * TLB may grow until it holds all of the chain, as no real one does.
 */
static void **walk(void **at, u64 *ns)
{
	unsigned int i;
	u64 t;

	flush_all();
	t = ktime_get_ns();
	for (i = 0; i < nr_chain; i++)
		at = READ_ONCE(*at);
	*ns += ktime_get_ns() - t;

	return at;
}

/* A lap through the direct map, one through the alias, and back: ns a step */
static int get_lap(char *buf, const struct kernel_param *kp)
{
	u64 direct = 0, aliased = 0;

	if (!chain_at)
		return -ENODATA;
	chain_at = walk(chain_at, &direct);
	alias_at = walk(alias_at, &aliased);
	alias_at = walk(alias_at, &aliased);
	chain_at = walk(chain_at, &direct);
	direct = direct * 50 / nr_chain;
	aliased = aliased * 50 / nr_chain;

	return sysfs_emit(buf, "%llu.%02llu %llu.%02llu\n", direct / 100, direct % 100,
			  aliased / 100, aliased % 100);
}

static const struct kernel_param_ops lap_ops = { .get = get_lap };
module_param_cb(lap, &lap_ops, NULL, 0400);
MODULE_PARM_DESC(lap, "chain: how long a step takes, through the direct map and through the alias");

static int set_age(const char *val, const struct kernel_param *kp)
{
	unsigned int i, pipe, in_row = NR_PIPES / HOLE_EVERY;

	for (pipe = 0; pipe < in_row; pipe++)
		for (i = pipe; i < nr_holes; i += in_row)
			__free_page(hole[i]);
	nr_holes = 0;

	return 0;
}

static const struct kernel_param_ops age_ops = { .set = set_age };
module_param_cb(age, &age_ops, NULL, 0200);
MODULE_PARM_DESC(age, "chain: free those pages that it does not lead through");

static int get_clear(char *buf, const struct kernel_param *kp)
{
	struct page *page = alloc_pages(GFP_KERNEL, BLOCK_ORDER);
	unsigned int i;
	u64 t;

	if (!page)
		return -ENOMEM;
	clear_pages(page_address(page), BLOCK_PAGES);
	t = ktime_get_ns();
	for (i = 0; i < BLOCK_PAGES; i++)
		clear_highpage(page + i);
	t = (ktime_get_ns() - t) * 100 / BLOCK_PAGES;
	__free_pages(page, BLOCK_ORDER);

	return sysfs_emit(buf, "%llu.%02llu\n", t / 100, t % 100);
}

static const struct kernel_param_ops clear_ops = { .get = get_clear };
module_param_cb(clear, &clear_ops, NULL, 0400);
MODULE_PARM_DESC(clear, "how long it takes to clear a page");

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

static int bench_areas(void)
{
	int err = hold_areas();

	if (err)
		free_areas();

	return err;
}

static int bench_absent_ours(void)
{
	return bench_absent("absent", absent);
}

static int bench_absent_singly(void)
{
	return bench_absent("absent_singly", absent_singly);
}

static int bench_absent_batched(void)
{
	return bench_absent("absent_batched", absent_batched);
}

static int bench_absent_limit(void)
{
	return bench_absent("absent_limit", absent_limit);
}

static int bench_nothing(void)
{
	return 0;
}

static int __init bench_init(void)
{
	static const struct {
		const char *name;
		int (*fn)(void);
	} benches[] = {
		{ "pairs", bench_pairs },
		{ "absent", bench_absent_ours },
		{ "absent_singly", bench_absent_singly },
		{ "absent_batched", bench_absent_batched },
		{ "absent_limit", bench_absent_limit },
		{ "zero", bench_zero },
		{ "refill", bench_refill },
		{ "areas", bench_areas },
		{ "chain", hold_chain },
		{ "nothing", bench_nothing },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(benches); i++)
		if (!strcmp(what, benches[i].name))
			return benches[i].fn();

	return -EINVAL;
}
module_init(bench_init);

static void __exit bench_exit(void)
{
	free_areas();
	free_chain();
}
module_exit(bench_exit);

MODULE_DESCRIPTION("Instruction counts of page allocation, and direct map changes");
MODULE_LICENSE("GPL");
