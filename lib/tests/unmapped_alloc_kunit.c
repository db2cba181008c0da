// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of the cache of pages that are absent from the direct map
 *
 * They hold mm/unmapped_alloc.c to what it promises: pages are absent on every
 * CPU from the first moment (r1), zero (r2), never present when something
 * fails (r3); the direct map is whole again afterwards (r4); hits and frees
 * flush nothing (r5); pages of others are not touched (r6), nor are whole
 * blocks split (r7). All orders come back through all the ways to free pages,
 * from all contexts. A random run is compared with a model, tasks on all CPUs
 * run against each other.
 *
 * Steps of a refill are made to fail, or pages chosen, by static stubs. A test
 * frees what it took even if it fails, and all end with the same checks: no
 * page is left behind, and all that is counted twice is equal.
 */
#include <kunit/platform_device.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <kunit/test-bug.h>
#include <linux/anon_inodes.h>
#include <linux/cgroup.h>
#include <linux/completion.h>
#include <linux/cpu.h>
#include <linux/cpuset.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/dmapool.h>
#include <linux/execmem.h>
#include <linux/file.h>
#include <linux/filter.h>
#include <linux/folio_batch.h>
#include <linux/hash.h>
#include <linux/iopoll.h>
#include <linux/irq_work.h>
#include <linux/kthread.h>
#include <linux/memcontrol.h>
#include <linux/mempool.h>
#include <linux/mempolicy.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/page-isolation.h>
#include <linux/page_frag_cache.h>
#include <linux/percpu.h>
#include <linux/platform_device.h>
#include <linux/prandom.h>
#include <linux/proc_fs.h>
#include <linux/random.h>
#include <linux/seq_file.h>
#include <linux/set_memory.h>
#include <linux/shmem_fs.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/unmapped_alloc.h>
#include <linux/vmalloc.h>
#include <linux/vmstat.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include <asm/tlbflush.h>

#include <trace/events/kmem.h>

#define BLOCK_PAGES	((unsigned int)(PMD_SIZE / PAGE_SIZE))

/* What others may allocate meanwhile: page tables, slabs */
#define FREE_SLACK	1024

#define NR_RECORDS	16

static unsigned int seed;
module_param(seed, uint, 0444);
MODULE_PARM_DESC(seed, "of the random tests, 0: choose one");

/**
 * struct mapping - how a page is mapped by the direct map
 * @page: first page of what was asked for
 * @level: of the page table entry
 * @flags: of the page table entry
 */
struct mapping {
	struct page	*page;
	unsigned int	level;
	pteval_t	flags;
};

/**
 * struct unmapped_test - state of one test
 * @test: the test
 * @nid: memory node that it uses
 * @held: chunks to be freed at the end, order by pfn of the first page
 * @rnd: random numbers
 * @used: pages in use when the test began
 * @reclaimable: NR_KERNEL_MISC_RECLAIMABLE when the test began
 * @events: buffer for vm events
 * @text: buffer for the direct map's part of meminfo
 * @offer: what unmapped_get_pages() is to return next
 * @offer_order: order of @offer
 * @before: mappings of pages before they were made absent
 * @nr_before: number of @before
 * @nr_set_valid: number of changes of the direct map
 * @nr_asked: how often a block was asked for: of this node, of others
 * @other: node that has blocks, or NUMA_NO_NODE
 * @gfp: what the page allocator was asked for last
 * @gfp_nid: the node that it was asked for
 * @gfp_block: flags of all allocations of descriptors
 * @reserves: the page allocator's reserves might have been used for page tables
 * @nr_failures: how often it is to fail
 * @nr_targets: allocations for migration: of any node, of one
 */
struct unmapped_test {
	struct kunit	*test;
	int		nid;
	struct xarray	held;
	struct rnd_state rnd;
	long		used;
	long		reclaimable;
	unsigned long	events[NR_VM_EVENT_ITEMS];
	char		text[256];

	struct page	*offer;
	unsigned int	offer_order;
	struct mapping	before[NR_RECORDS];
	unsigned int	nr_before;
	unsigned int	nr_set_valid;
	unsigned int	nr_asked[2];
	int		other;

	gfp_t		gfp;
	int		gfp_nid;
	gfp_t		gfp_block;
	bool		reserves;
	unsigned int	nr_failures;
	unsigned int	nr_targets[2];
};

/* Counters */

static long sum_node_stat(int nid, enum node_stat_item item)
{
	pg_data_t *pgdat = NODE_DATA(nid);
	long nr = atomic_long_read(&pgdat->vm_stat[item]);
	int cpu;

	for_each_online_cpu(cpu)
		nr += per_cpu_ptr(pgdat->per_cpu_nodestats, cpu)->vm_node_stat_diff[item];

	return nr;
}

/*
 * Exact while nothing changes, unlike node_page_state(). Each second a CPU's
 * part is moved, and may be missing from the sum that is made meanwhile.
 */
static long node_stat(int nid, enum node_stat_item item)
{
	long nr, again = sum_node_stat(nid, item);

	do {
		nr = again;
		again = sum_node_stat(nid, item);
	} while (again != nr);

	return nr;
}

static long nr_used(struct unmapped_test *ut)
{
	return node_stat(ut->nid, NR_DIRECT_UNMAPPED_USED) - ut->used;
}

static long nr_cached(struct unmapped_test *ut)
{
	return node_stat(ut->nid, NR_DIRECT_UNMAPPED_FREE);
}

static unsigned long event(struct unmapped_test *ut, enum vm_event_item item)
{
	all_vm_events(ut->events);

	return ut->events[item];
}

/* 0, or -ETIMEDOUT after a time that is long for a slow, busy machine */
static int wait_for_cached(struct unmapped_test *ut, long nr)
{
	long cached;

	return read_poll_timeout(nr_cached, cached, cached == nr, 20 * USEC_PER_MSEC,
				 60 * USEC_PER_SEC, false, ut);
}

/* Pages are back before that is counted */
static int wait_for_event(struct unmapped_test *ut, enum vm_event_item item,
			  unsigned long nr)
{
	unsigned long now;

	return read_poll_timeout(event, now, now == nr, 20 * USEC_PER_MSEC,
				 60 * USEC_PER_SEC, false, ut, item);
}

/* Presence */

static bool page_present(const struct page *page)
{
	u8 byte;

	return !copy_from_kernel_nofault(&byte, page_address(page), sizeof(byte));
}

static unsigned int nr_present(const struct page *page, unsigned int nr)
{
	unsigned int i, present = 0;

	for (i = 0; i < nr; i++)
		present += page_present(page + i);

	return present;
}

/* What is returned does not count as cached any more, shortly before this is true */
static int wait_for_present(const struct page *page, unsigned int nr)
{
	unsigned int present;

	/* That takes out what is free */
	if (debug_pagealloc_enabled())
		return 0;

	return read_poll_timeout(nr_present, present, present == nr, 20 * USEC_PER_MSEC,
				 60 * USEC_PER_SEC, false, page, nr);
}

struct probe {
	union {
		const struct page	*page;
		void			*addr;
	};
	unsigned int			nr;
	atomic_t			present;
};

static void probe_on_this_cpu(void *info)
{
	struct probe *probe = info;

	atomic_add(nr_present(probe->page, probe->nr), &probe->present);
}

/* The sum of all CPUs */
static unsigned int nr_present_on_cpus(const struct page *page, unsigned int nr)
{
	struct probe probe = { .page = page, .nr = nr };

	on_each_cpu(probe_on_this_cpu, &probe, 1);

	return atomic_read(&probe.present);
}

/* Of pages that the page allocator has: debug_pagealloc takes what is free out */
static void expect_free_pages_present(struct kunit *test, const struct page *page,
				      unsigned int nr)
{
	if (!debug_pagealloc_enabled())
		KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page, nr),
				nr * num_online_cpus());
}

static struct mapping mapping_of(struct page *page)
{
	struct mapping map = { .page = page };
	pte_t *pte;

	/* Keeps the page tables from being collapsed and freed */
	guard(mmap_read_lock)(&init_mm);
	pte = lookup_address((unsigned long)page_address(page), &map.level);
	map.flags = pte ? pte_flags(*pte) : 0;

	return map;
}

/* As wait_for_cached() */
static int wait_for_level(struct page *page, unsigned int level)
{
	struct mapping map;

	return read_poll_timeout(mapping_of, map, map.level == level, 20 * USEC_PER_MSEC,
				 60 * USEC_PER_SEC, false, page);
}

/*
 * How much is mapped by pages of each size, in kB. The vm events say more, but
 * only once the system is up.
 */
struct direct_map {
	unsigned long size_4k, size_2m, size_1g;
};

#ifdef CONFIG_PROC_FS
static struct direct_map read_direct_map(struct unmapped_test *ut)
{
	struct seq_file m = { .buf = ut->text, .size = sizeof(ut->text) - 1 };
	struct direct_map map = {};
	int nr;

	memset(ut->text, 0, sizeof(ut->text));
	arch_report_meminfo(&m);
	nr = sscanf(ut->text, "DirectMap4k: %lu kB DirectMap2M: %lu kB DirectMap1G: %lu kB",
		    &map.size_4k, &map.size_2m, &map.size_1g);
	KUNIT_EXPECT_GE(ut->test, nr, 2);

	return map;
}
#else
static struct direct_map read_direct_map(struct unmapped_test *ut)
{
	return (struct direct_map){};
}
#endif

static void expect_whole_map(struct unmapped_test *ut, const struct direct_map *before)
{
	struct direct_map now = read_direct_map(ut);

	KUNIT_EXPECT_LE(ut->test, now.size_4k, before->size_4k);
	KUNIT_EXPECT_GE(ut->test, now.size_1g, before->size_1g);
}

static void expect_same_map(struct unmapped_test *ut, const struct direct_map *before)
{
	struct direct_map now = read_direct_map(ut);

	KUNIT_EXPECT_MEMEQ(ut->test, &now, before, sizeof(now));
}

/* Contents */

static u64 page_stamp(const struct page *page, u64 salt)
{
	return hash_64(page_to_pfn(page) ^ salt, 64) | 1;
}

static void stamp(struct page *page, unsigned int nr, u64 salt)
{
	unsigned long irqflags;
	unsigned int i;
	void *addr;

	for (i = 0; i < nr; i++) {
		addr = unmapped_page_map(page + i, &irqflags);
		memset64(addr, page_stamp(page + i, salt), PAGE_SIZE / sizeof(u64));
		unmapped_page_unmap(addr, irqflags);
	}
}

static bool all_equal(const u64 *p, u64 value)
{
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / sizeof(u64); i++)
		if (p[i] != value)
			return false;

	return true;
}

static bool is_stamped(struct page *page, unsigned int nr, u64 salt)
{
	unsigned long irqflags;
	bool equal = true;
	unsigned int i;
	void *addr;

	for (i = 0; i < nr && equal; i++) {
		addr = unmapped_page_map(page + i, &irqflags);
		equal = all_equal(addr, page_stamp(page + i, salt));
		unmapped_page_unmap(addr, irqflags);
	}

	return equal;
}

static bool is_zero(struct page *page, unsigned int nr)
{
	unsigned long irqflags;
	bool zero = true;
	unsigned int i;
	void *addr;

	for (i = 0; i < nr && zero; i++) {
		addr = unmapped_page_map(page + i, &irqflags);
		zero = all_equal(addr, 0);
		unmapped_page_unmap(addr, irqflags);
	}

	return zero;
}

/* Chunks that the test has */

static void hold(struct unmapped_test *ut, struct page *page, unsigned int order)
{
	void *old = xa_store(&ut->held, page_to_pfn(page), xa_mk_value(order),
			     GFP_KERNEL);

	/* Also fails if the page was handed out twice */
	KUNIT_ASSERT_NULL(ut->test, old);
}

static struct page *hold_any(struct unmapped_test *ut, struct page *page,
			     unsigned int order)
{
	if (page)
		hold(ut, page, order);

	return page;
}

static unsigned int unhold(struct unmapped_test *ut, struct page *page)
{
	return xa_to_value(xa_erase(&ut->held, page_to_pfn(page)));
}

static struct page *take(struct unmapped_test *ut, gfp_t gfp, unsigned int order)
{
	struct page *page;

	page = unmapped_pages_alloc(gfp | __GFP_THISNODE, order, ut->nid);
	KUNIT_ASSERT_NOT_NULL_MSG(ut->test, page, "order %u", order);
	hold(ut, page, order);

	return page;
}

/* Large chunks may be wiped later, but not too late for the test */
static void give(struct unmapped_test *ut, struct page *page)
{
	__free_pages(page, unhold(ut, page));
	unmapped_alloc_flush_deferred(ut->nid);
}

static void split_held(struct unmapped_test *ut, struct page *page)
{
	unsigned int i, order = unhold(ut, page);

	split_page(page, order);
	for (i = 0; i < 1U << order; i++)
		hold(ut, page + i, 0);
}

/* Single pages of the page allocator */
static struct page *take_ordinary(struct unmapped_test *ut, unsigned int order)
{
	struct page *page;

	page = alloc_pages_node(ut->nid, GFP_KERNEL | __GFP_THISNODE, order);
	KUNIT_ASSERT_NOT_NULL(ut->test, page);
	hold(ut, page, order);
	split_held(ut, page);

	return page;
}

/*
 * What is freed by free_pages_nolock() while the zone's lock is taken waits for
 * the next chunk that is freed there, of an order that has no pcp list.
 */
static void flush_deferred(struct unmapped_test *ut)
{
	static const gfp_t zones[] = { 0, __GFP_DMA32 };
	unsigned int i, order = PAGE_ALLOC_COSTLY_ORDER + 1;
	struct page *page;

	for (i = 0; i < ARRAY_SIZE(zones); i++) {
		page = alloc_pages_node(ut->nid, GFP_KERNEL | zones[i] | __GFP_THISNODE |
					__GFP_NORETRY | __GFP_NOWARN, order);
		if (page)
			__free_pages(page, order);
	}
	unmapped_alloc_flush_deferred(ut->nid);
}

static void give_all(struct unmapped_test *ut)
{
	unsigned long pfn;
	void *entry;

	xa_for_each(&ut->held, pfn, entry)
		__free_pages(pfn_to_page(pfn), unhold(ut, pfn_to_page(pfn)));
	flush_deferred(ut);
}

/* Make unmapped_get_pages() return these pages of the page allocator */
static void offer(struct unmapped_test *ut, struct page *page, unsigned int order)
{
	unsigned int i;

	for (i = 0; i < 1U << order; i++) {
		unhold(ut, page + i);
		set_page_count(page + i, 0);
	}
	ut->offer = page;
	ut->offer_order = order;
}

/* Stubs for the steps of a refill */

static struct unmapped_test *current_ut(void)
{
	return kunit_get_current_test()->priv;
}

static struct page *fail_get_pages(gfp_t gfp, unsigned int order, int nid,
				   nodemask_t *nodemask)
{
	return NULL;
}

static struct page *get_offered_pages(gfp_t gfp, unsigned int order, int nid,
				      nodemask_t *nodemask)
{
	struct unmapped_test *ut = current_ut();
	struct page *page = ut->offer;

	if (!page || order != ut->offer_order)
		return NULL;
	ut->offer = NULL;

	return page;
}

/* No block is to be had, and other pages are dirty */
static struct page *get_dirty_small_pages(gfp_t gfp, unsigned int order, int nid,
					  nodemask_t *nodemask)
{
	struct page *page;

	if (order == UNMAPPED_MAX_ORDER)
		return NULL;

	page = alloc_pages_node(nid, gfp, order);
	if (page) {
		memset(page_address(page), 0xa5, PAGE_SIZE << order);
		page_ref_freeze(page, 1);
	}

	return page;
}

static struct page *record_get_pages(gfp_t gfp, unsigned int order, int nid,
				     nodemask_t *nodemask)
{
	struct unmapped_test *ut = current_ut();
	struct page *page;

	ut->gfp = gfp;
	ut->gfp_nid = nid;
	if (ut->nr_failures) {
		ut->nr_failures--;
		return NULL;
	}

	page = alloc_pages_node(nid, gfp, order);
	if (page)
		page_ref_freeze(page, 1);

	return page;
}

static struct page *fail_get_contig(gfp_t gfp, int nid)
{
	return NULL;
}

static unsigned long fail_collect_free(gfp_t gfp, unsigned int order, int nid)
{
	return 0;
}

/* Where blocks and pages come from if the page allocator has none to give */
static void stub_other_sources(struct kunit *test)
{
	kunit_activate_static_stub(test, unmapped_get_contig, fail_get_contig);
	kunit_activate_static_stub(test, unmapped_collect_free, fail_collect_free);
}

static void stub_get_pages(struct kunit *test, typeof(unmapped_get_pages) get_pages)
{
	__kunit_activate_static_stub(test, unmapped_get_pages, get_pages);
	stub_other_sources(test);
}

static struct unmapped_block *fail_new_block(unsigned long pfn,
					     unsigned int order, gfp_t gfp)
{
	return NULL;
}

static struct unmapped_block *record_new_block(unsigned long pfn,
					       unsigned int order, gfp_t gfp)
{
	struct unmapped_test *ut = current_ut();
	struct unmapped_block *b;

	ut->gfp_block |= gfp;
	kunit_deactivate_static_stub(ut->test, unmapped_new_block);
	b = unmapped_new_block(pfn, order, gfp);
	kunit_activate_static_stub(ut->test, unmapped_new_block, record_new_block);

	return b;
}

static void record_mapping(struct unmapped_test *ut, struct page *page)
{
	if (ut->nr_before < NR_RECORDS)
		ut->before[ut->nr_before++] = mapping_of(page);
}

static int record_set_valid(struct page *page, unsigned int nr, bool valid)
{
	struct unmapped_test *ut = current_ut();

	ut->nr_set_valid++;
	if (!valid)
		record_mapping(ut, page);

	return set_direct_map_valid_noflush(page, nr, valid);
}

static int record_reserves(struct page *page, unsigned int nr, bool valid)
{
	current_ut()->reserves |= !valid && (current->flags & PF_MEMALLOC);

	return set_direct_map_valid_noflush(page, nr, valid);
}

static int fail_set_valid(struct page *page, unsigned int nr, bool valid)
{
	if (!valid) {
		record_mapping(current_ut(), page);
		return -ENOMEM;
	}

	return set_direct_map_valid_noflush(page, nr, valid);
}

static int fail_set_valid_halfway(struct page *page, unsigned int nr, bool valid)
{
	if (!valid) {
		record_mapping(current_ut(), page);
		if (nr > 1)
			set_direct_map_valid_noflush(page, nr / 2, valid);
		return -ENOMEM;
	}

	return set_direct_map_valid_noflush(page, nr, valid);
}

static int fail_set_valid_of_blocks(struct page *page, unsigned int nr, bool valid)
{
	if (!valid && nr == BLOCK_PAGES)
		return -ENOMEM;

	return set_direct_map_valid_noflush(page, nr, valid);
}

/* All CPUs use the pages up to the last moment */
static int probe_and_set_valid(struct page *page, unsigned int nr, bool valid)
{
	if (!valid)
		nr_present_on_cpus(page, nr);

	return set_direct_map_valid_noflush(page, nr, valid);
}

/* Blocks of which a part is ours */

static bool every_page(unsigned int i)
{
	return true;
}

static bool every_other_page(unsigned int i)
{
	return i & 1;
}

static bool a_few_pages(unsigned int i)
{
	return hash_32(i, 8) < 8;
}

static bool nearly_all_pages(unsigned int i)
{
	return hash_32(i, 8) >= 8;
}

static bool across_blocks(unsigned int i)
{
	return i >= BLOCK_PAGES - 40 && i < BLOCK_PAGES + 24;
}

static bool first_block(unsigned int i)
{
	return i < BLOCK_PAGES;
}

/* Turn single pages of take_ordinary() into ours where @ours says so */
static unsigned int make_ours(struct unmapped_test *ut, struct page *page,
			      unsigned int nr, bool (*ours)(unsigned int i))
{
	unsigned int i, nr_ours = 0;

	stub_get_pages(ut->test, get_offered_pages);
	for (i = 0; i < nr; i++) {
		if (!ours(i))
			continue;
		offer(ut, page + i, 0);
		KUNIT_ASSERT_PTR_EQ(ut->test, take(ut, GFP_KERNEL, 0), page + i);
		nr_ours++;
	}
	kunit_deactivate_static_stub(ut->test, unmapped_get_pages);

	return nr_ours;
}

/* r1: absent */

static const unsigned int all_orders[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 };
static const unsigned int small_orders[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8 };

static void order_desc(const unsigned int *order, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "order %u", *order);
}

KUNIT_ARRAY_PARAM(order, all_orders, order_desc);
KUNIT_ARRAY_PARAM(small_order, small_orders, order_desc);

static void r1_absent_on_every_cpu(struct kunit *test)
{
	unsigned int order = *(unsigned int *)test->param_value;
	unsigned int nr = 1U << order;
	struct unmapped_test *ut = test->priv;
	struct page *page;

	/* As a refill, as a hit, and while it is cached */
	page = take(ut, GFP_KERNEL, order);
	KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page, nr), 0);
	page = take(ut, GFP_KERNEL, order);
	KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page, nr), 0);
	stamp(page, nr, 1);
	KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page, nr), 0);
	KUNIT_EXPECT_TRUE(test, is_unmapped_page(page));
	KUNIT_EXPECT_FALSE(test, kernel_page_present(page));
	give(ut, page);
	KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page, nr), 0);

	/* No longer than that */
	give_all(ut);
	unmapped_alloc_drain(ut->nid);
	expect_free_pages_present(test, page, nr);
	KUNIT_EXPECT_FALSE(test, is_unmapped_page(page));
}

static void r1_absent_from_the_first_moment(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page;
	unsigned int i;

	kunit_activate_static_stub(test, unmapped_set_valid, probe_and_set_valid);
	for (i = 0; i < 8; i++) {
		page = take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
		KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page, BLOCK_PAGES), 0);
	}

	stub_get_pages(test, get_dirty_small_pages);
	for (i = 0; i < 8; i++) {
		page = take(ut, GFP_KERNEL, 0);
		KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page, 1), 0);
	}
}

static void probe_range(void *info)
{
	struct probe *probe = info;
	unsigned int i;
	u8 byte;

	for (i = 0; i < probe->nr; i++)
		if (!copy_from_kernel_nofault(&byte, probe->addr + i * PAGE_SIZE, 1))
			atomic_inc(&probe->present);
}

/* Nobody gets at pages through the window that they were wiped through */
static void r1_absent_after_access(struct kunit *test)
{
	struct probe probe = { .nr = UNMAPPED_WINDOW_PAGES };
	struct unmapped_test *ut = test->priv;
	unsigned long irqflags;
	unsigned int i;

	for (i = 0; i < 20; i++) {
		migrate_disable();
		probe.addr = unmapped_page_map(take(ut, GFP_KERNEL, 5), &irqflags);
		unmapped_page_unmap(probe.addr, irqflags);
		probe_range(&probe);
		give_all(ut);
		probe_range(&probe);
		migrate_enable();
		on_each_cpu(probe_range, &probe, 1);
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&probe.present), 0);
}

/* r2: zero */

static void r2_zero_after_dirty_refill(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take_ordinary(ut, UNMAPPED_MAX_ORDER);

	memset(page_address(page), 0xa5, PMD_SIZE);
	offer(ut, page, UNMAPPED_MAX_ORDER);
	stub_get_pages(test, get_offered_pages);

	KUNIT_EXPECT_PTR_EQ(test, take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER), page);
	KUNIT_EXPECT_TRUE(test, is_zero(page, BLOCK_PAGES));
}

/* Also while pages are still in the cache */
static void r2_zero_after_use(struct kunit *test)
{
	unsigned int order = *(unsigned int *)test->param_value;
	unsigned int nr = 1U << order;
	struct unmapped_test *ut = test->priv;
	struct page *page, *again;

	take(ut, GFP_KERNEL, 0);
	page = take(ut, GFP_KERNEL, order);
	KUNIT_EXPECT_TRUE(test, is_zero(page, nr));
	stamp(page, nr, 2);
	KUNIT_EXPECT_TRUE(test, is_stamped(page, nr, 2));

	give(ut, page);
	KUNIT_EXPECT_TRUE(test, is_zero(page, nr));
	again = take(ut, GFP_KERNEL, order);
	KUNIT_EXPECT_PTR_EQ(test, again, page);
	KUNIT_EXPECT_TRUE(test, is_zero(again, nr));
}

/* The page may belong to anybody by now */
static bool page_has(struct page *page, u64 value)
{
	unsigned int i;
	u64 word;

	for (i = 0; i < PAGE_SIZE / sizeof(word); i++)
		if (!copy_from_kernel_nofault(&word, page_address(page) + i * sizeof(word),
					      sizeof(word)) && word == value)
			return true;

	return false;
}

static void r2_zero_when_returned(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	u64 salt = get_random_u64();
	struct page *page;
	unsigned int i;

	page = take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	stamp(page, BLOCK_PAGES, salt);
	give(ut, page);
	unmapped_alloc_drain(ut->nid);

	expect_free_pages_present(test, page, BLOCK_PAGES);
	for (i = 0; i < BLOCK_PAGES; i++)
		KUNIT_EXPECT_FALSE(test, page_has(page + i, page_stamp(page + i, salt)));
}

/* r3: closed */

static void expect_refused(struct unmapped_test *ut, gfp_t gfp, unsigned int order)
{
	struct page *page = unmapped_pages_alloc(gfp, order, ut->nid);

	KUNIT_EXPECT_NULL_MSG(ut->test, page, "gfp %pGg, order %u", &gfp, order);
	if (page)
		hold(ut, page, order);
}

static void r3_closed_to_bad_requests(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	unsigned int order;

	/* With and without pages in the cache */
	for (order = UNMAPPED_MAX_ORDER + 1; order < 64; order++)
		expect_refused(ut, GFP_KERNEL, order);
	take(ut, GFP_KERNEL, 0);
	for (order = 0; order <= MAX_PAGE_ORDER; order++) {
		expect_refused(ut, GFP_KERNEL | GFP_DMA, order);
		expect_refused(ut, GFP_KERNEL | GFP_DMA32, order);
	}
	expect_refused(ut, GFP_KERNEL, UINT_MAX);
	KUNIT_EXPECT_EQ(test, nr_used(ut), 1);
}

static const struct atomic_gfp {
	const char	*desc;
	gfp_t		gfp;
} atomic_gfps[] = {
	{ "GFP_NOWAIT", GFP_NOWAIT },
	{ "GFP_ATOMIC", GFP_ATOMIC },
	{ "GFP_ATOMIC | __GFP_MEMALLOC", GFP_ATOMIC | __GFP_MEMALLOC },
	{ "no flags", 0 },
};

KUNIT_ARRAY_PARAM_DESC(atomic_gfp, atomic_gfps, desc);

/* A hit or nothing, whatever is locked */
static struct page *alloc_atomic(struct unmapped_test *ut, gfp_t gfp,
				 unsigned int order)
{
	static DEFINE_SPINLOCK(lock);
	struct page *page;
	unsigned long flags;

	spin_lock_irqsave(&lock, flags);
	page = unmapped_pages_alloc(gfp, order, ut->nid);
	spin_unlock_irqrestore(&lock, flags);
	if (page)
		hold(ut, page, order);

	return page;
}

static void r3_closed_to_atomic_misses(struct kunit *test)
{
	gfp_t gfp = ((const struct atomic_gfp *)test->param_value)->gfp;
	struct unmapped_test *ut = test->priv;
	unsigned int order;
	struct page *page;

	for (order = 0; order <= UNMAPPED_MAX_ORDER; order++)
		KUNIT_EXPECT_NULL(test, alloc_atomic(ut, gfp, order));

	take(ut, GFP_KERNEL, 0);
	for (order = 0; order < UNMAPPED_MAX_ORDER; order++) {
		page = alloc_atomic(ut, gfp, order);
		KUNIT_ASSERT_NOT_NULL(test, page);
		KUNIT_EXPECT_EQ(test, nr_present(page, 1U << order), 0);
		KUNIT_EXPECT_TRUE(test, is_zero(page, 1U << order));
	}
	KUNIT_EXPECT_NULL(test, alloc_atomic(ut, gfp, 0));
}

struct alloc_irq_work {
	struct irq_work	work;
	struct page	*page[2];
	int		nid;
};

static void alloc_irq_work_fn(struct irq_work *work)
{
	struct alloc_irq_work *a = container_of(work, struct alloc_irq_work, work);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(a->page); i++)
		a->page[i] = unmapped_pages_alloc(GFP_ATOMIC, UNMAPPED_MAX_ORDER - 1, a->nid);
}

static void r3_closed_to_interrupts(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct alloc_irq_work a = {
		.work = IRQ_WORK_INIT(alloc_irq_work_fn),
		.nid = ut->nid,
	};

	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "no page is allocated in hard interrupts on PREEMPT_RT");

	/* One hit, one miss */
	take(ut, GFP_KERNEL, 0);
	irq_work_queue(&a.work);
	irq_work_sync(&a.work);
	KUNIT_EXPECT_NULL(test, a.page[1]);
	KUNIT_ASSERT_NOT_NULL(test, a.page[0]);
	hold(ut, a.page[0], UNMAPPED_MAX_ORDER - 1);
	KUNIT_EXPECT_EQ(test, nr_present(a.page[0], BLOCK_PAGES / 2), 0);
	KUNIT_EXPECT_TRUE(test, is_zero(a.page[0], BLOCK_PAGES / 2));
}

static const struct failure {
	const char	*desc;
	void		*step;
	void		*stub;
} failures[] = {
	{ "no pages", unmapped_get_pages, fail_get_pages },
	{ "no block descriptor", unmapped_new_block, fail_new_block },
	{ "direct map cannot be changed", unmapped_set_valid, fail_set_valid },
	{ "direct map changed halfway", unmapped_set_valid, fail_set_valid_halfway },
};

KUNIT_ARRAY_PARAM_DESC(failure, failures, desc);

static void drain_pcp_lists(struct work_struct *work)
{
	drain_local_pages(NULL);
}

static long nr_free_pages_drained(void)
{
	schedule_on_each_cpu(drain_pcp_lists);

	return global_zone_page_state(NR_FREE_PAGES);
}

static void expect_not_leaked(struct unmapped_test *ut, long free_before)
{
	long free = nr_free_pages_drained();

	KUNIT_EXPECT_GT(ut->test, free, free_before - FREE_SLACK);
	KUNIT_EXPECT_EQ(ut->test, nr_used(ut), 0);
	KUNIT_EXPECT_EQ(ut->test, nr_cached(ut), 0);
	KUNIT_EXPECT_EQ(ut->test, unmapped_alloc_check(ut->nid), 0);
}

/* What could not be made absent is present, not split and not ours */
static void expect_as_before(struct unmapped_test *ut)
{
	struct mapping *map, now;
	int nid;

	for_each_node_state(nid, N_MEMORY)
		unmapped_alloc_drain(nid);
	while (ut->nr_before) {
		map = &ut->before[--ut->nr_before];
		now = mapping_of(map->page);
		expect_free_pages_present(ut->test, map->page, 1);
		KUNIT_EXPECT_FALSE(ut->test, is_unmapped_page(map->page));
		KUNIT_EXPECT_GE(ut->test, now.level, map->level);
		if (now.level == map->level && !debug_pagealloc_enabled())
			KUNIT_EXPECT_EQ(ut->test, now.flags, map->flags);
	}
}

static void r3_closed_when_refill_fails(struct kunit *test)
{
	const struct failure *failure = test->param_value;
	struct unmapped_test *ut = test->priv;
	long free = nr_free_pages_drained();
	unsigned int i, order;

	stub_other_sources(test);
	__kunit_activate_static_stub(test, failure->step, failure->stub);
	for (i = 0; i < 10; i++) {
		for (order = 0; order <= UNMAPPED_MAX_ORDER; order++) {
			expect_refused(ut, GFP_KERNEL, order);
			expect_as_before(ut);
		}
	}
	kunit_deactivate_static_stub(test, failure->step);

	expect_not_leaked(ut, free);
	take(ut, GFP_KERNEL, 0);
}

static void r3_closed_to_reclaimers(struct kunit *test)
{
	unsigned int noreclaim = memalloc_noreclaim_save();

	expect_refused(test->priv, GFP_KERNEL, 0);
	memalloc_noreclaim_restore(noreclaim);
}

/* r4: whole */

static void skip_unless_large_map(struct kunit *test)
{
	if (!IS_ENABLED(CONFIG_PROC_FS))
		kunit_skip(test, "without CONFIG_PROC_FS large pages are not counted");
	if (debug_pagealloc_enabled())
		kunit_skip(test, "debug_pagealloc maps single pages");
	if (IS_ENABLED(CONFIG_CPA_DEBUG))
		kunit_skip(test, "CPA_DEBUG splits the direct map at any time");
	if (!boot_cpu_has(X86_FEATURE_PSE))
		kunit_skip(test, "the direct map has no large pages");
}

static void expect_whole(struct unmapped_test *ut)
{
	struct mapping *map, now;

	KUNIT_EXPECT_NE(ut->test, ut->nr_before, 0);
	while (ut->nr_before) {
		map = &ut->before[--ut->nr_before];
		now = mapping_of(map->page);
		KUNIT_EXPECT_TRUE(ut->test, page_present(map->page));
		KUNIT_EXPECT_GE(ut->test, now.level, PG_LEVEL_2M);
		KUNIT_EXPECT_GE(ut->test, now.level, map->level);
		if (now.level == map->level)
			KUNIT_EXPECT_EQ(ut->test, now.flags, map->flags);
	}
}

static void r4_whole_after_drain(struct kunit *test)
{
	unsigned int order = *(unsigned int *)test->param_value;
	struct unmapped_test *ut = test->priv;
	struct direct_map map = read_direct_map(ut);
	unsigned int i;

	skip_unless_large_map(test);
	kunit_activate_static_stub(test, unmapped_set_valid, record_set_valid);
	for (i = 0; i < 4; i++)
		stamp(take(ut, GFP_KERNEL, order), 1, 3);
	for (i = 0; i < 2; i++)
		take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);

	give_all(ut);
	unmapped_alloc_drain(ut->nid);
	expect_whole(ut);
	expect_whole_map(ut, &map);
}

static void skip_if_split(struct kunit *test, const struct mapping *map)
{
	if (map->level == PG_LEVEL_4K)
		kunit_skip(test, "this memory was mapped by 4 KiB pages before");
}

static void expect_mapping(struct kunit *test, struct page *page,
			   const struct mapping *before)
{
	struct mapping now = mapping_of(page);

	KUNIT_EXPECT_EQ(test, now.level, before->level);
	KUNIT_EXPECT_EQ(test, now.flags, before->flags);
}

static void r4_whole_after_fallback(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take_ordinary(ut, UNMAPPED_MAX_ORDER);
	struct mapping before = mapping_of(page);
	struct direct_map map = read_direct_map(ut);

	skip_unless_large_map(test);
	skip_if_split(test, &before);

	make_ours(ut, page, BLOCK_PAGES, every_other_page);
	KUNIT_EXPECT_EQ(test, mapping_of(page).level, PG_LEVEL_4K);
	KUNIT_EXPECT_EQ(test, read_direct_map(ut).size_4k, map.size_4k + PMD_SIZE / SZ_1K);
	give_all(ut);
	unmapped_alloc_drain(ut->nid);
	expect_mapping(test, page, &before);
	expect_same_map(ut, &map);
}

/* A restored page is as if it had never been taken out, for other users too */
static void r4_whole_after_single_pages(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take_ordinary(ut, UNMAPPED_MAX_ORDER);
	struct mapping before = mapping_of(page);
	struct direct_map map = read_direct_map(ut);
	unsigned int i;

	skip_unless_large_map(test);
	skip_if_split(test, &before);

	for (i = 0; i < 4; i++) {
		KUNIT_ASSERT_EQ(test, set_direct_map_invalid_noflush(page + i), 0);
		KUNIT_EXPECT_FALSE(test, kernel_page_present(page + i));
	}
	for (i = 0; i < 4; i++)
		KUNIT_ASSERT_EQ(test, set_direct_map_default_noflush(page + i), 0);
	flush_tlb_kernel_range((unsigned long)page_address(page),
			       (unsigned long)page_address(page + 4));
	for (i = 0; i < 4; i++)
		KUNIT_EXPECT_EQ(test, mapping_of(page + i).flags,
				mapping_of(page + 4).flags);

	KUNIT_EXPECT_EQ(test, set_direct_map_collapse(page, PMD_SIZE), 1);
	set_direct_map_collapse(page, PUD_SIZE);
	expect_mapping(test, page, &before);
	expect_same_map(ut, &map);
}

/* Blocks of the page allocator, until there is one that is mapped by 1 GiB */
static struct page *take_from_gigabyte(struct unmapped_test *ut)
{
	struct page *page;

	while (si_mem_available() > totalram_pages() / 2) {
		page = alloc_pages_node(ut->nid, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN,
					UNMAPPED_MAX_ORDER);
		if (!page)
			break;
		hold(ut, page, UNMAPPED_MAX_ORDER);
		if (mapping_of(page).level == PG_LEVEL_1G)
			return page;
	}

	return NULL;
}

static void r4_whole_gigabytes(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take_from_gigabyte(ut);
	struct direct_map map;
	struct mapping before;

	skip_unless_large_map(test);
	if (!page)
		kunit_skip(test, "no free memory is mapped by 1 GiB pages");

	map = read_direct_map(ut);
	before = mapping_of(page);
	offer(ut, page, UNMAPPED_MAX_ORDER);
	stub_get_pages(test, get_offered_pages);
	KUNIT_ASSERT_PTR_EQ(test, take(ut, GFP_KERNEL, 0), page);
	KUNIT_EXPECT_EQ(test, mapping_of(page).level, PG_LEVEL_2M);

	give(ut, page);
	unmapped_alloc_drain(ut->nid);
	expect_mapping(test, page, &before);
	expect_same_map(ut, &map);
}

/* r5: quiet */

#define NR_QUIET	1000

#ifdef CONFIG_DEBUG_TLBFLUSH
struct flushes {
	long remote, local;
};

static struct flushes count_flushes(struct unmapped_test *ut)
{
	struct flushes f;

	all_vm_events(ut->events);
	f.remote = ut->events[NR_TLB_REMOTE_FLUSH] +
		   ut->events[NR_TLB_REMOTE_FLUSH_RECEIVED];
	f.local = ut->events[NR_TLB_LOCAL_FLUSH_ALL] +
		  ut->events[NR_TLB_LOCAL_FLUSH_ONE];

	return f;
}

/* Flushes beyond one by this CPU for each page that it wipes */
static long hit_and_free(struct unmapped_test *ut, unsigned int order)
{
	unsigned int i, nr = NR_QUIET >> order ?: 1;
	struct flushes before, after;

	before = count_flushes(ut);
	for (i = 0; i < nr; i++) {
		__free_pages(unmapped_pages_alloc(GFP_KERNEL, order, ut->nid), order);
		flush_deferred(ut);
	}
	after = count_flushes(ut);

	return after.remote - before.remote +
	       max(after.local - before.local - (nr << order), 0L);
}

static void r5_quiet_hits_and_frees(struct kunit *test)
{
	unsigned int order = *(unsigned int *)test->param_value;
	long flushes, least = LONG_MAX;
	struct unmapped_test *ut = test->priv;
	struct direct_map map;
	unsigned int i;

	take(ut, GFP_KERNEL, 0);
	give(ut, take(ut, GFP_KERNEL, order));
	kunit_activate_static_stub(test, unmapped_set_valid, record_set_valid);
	map = read_direct_map(ut);

	/* Others may flush at any time, but not all the time */
	for (i = 0; i < 20 && least; i++) {
		flushes = hit_and_free(ut, order);
		least = min(least, flushes);
	}
	KUNIT_EXPECT_EQ(test, least, 0);
	KUNIT_EXPECT_EQ(test, ut->nr_set_valid, 0);
	expect_same_map(ut, &map);
}
#else
static void r5_quiet_hits_and_frees(struct kunit *test)
{
	kunit_skip(test, "CONFIG_DEBUG_TLBFLUSH is not set, flushes are not counted");
}
#endif

/* r6: free of charge for others */

static void r6_free_of_charge(struct kunit *test)
{
	unsigned int order = *(unsigned int *)test->param_value;
	struct unmapped_test *ut = test->priv;
	unsigned int i;
	struct page *page;

	/* Pageblock flags take no more memory than without us */
	BUILD_BUG_ON(NR_PAGEBLOCK_BITS != 8);

	kunit_activate_static_stub(test, unmapped_set_valid, record_set_valid);
	for (i = 0; i < 100; i++) {
		page = alloc_pages_node(ut->nid, GFP_KERNEL, order);
		KUNIT_ASSERT_NOT_NULL(test, page);
		KUNIT_EXPECT_FALSE(test, get_pfnblock_bit(page, page_to_pfn(page),
							  PB_unmapped));
		KUNIT_EXPECT_FALSE(test, is_unmapped_page(page));
		KUNIT_EXPECT_EQ(test, nr_present(page, 1U << order), 1U << order);
		__free_pages(page, order);
	}
	KUNIT_EXPECT_EQ(test, ut->nr_set_valid, 0);
	KUNIT_EXPECT_EQ(test, nr_used(ut), 0);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), 0);
}

/* The bit of a block goes away with the last page that is ours */
static void r6_free_of_charge_afterwards(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take(ut, GFP_KERNEL, 0);
	unsigned long pfn = page_to_pfn(page);

	KUNIT_EXPECT_TRUE(test, get_pfnblock_bit(page, pfn, PB_unmapped));
	give(ut, page);
	KUNIT_EXPECT_TRUE(test, get_pfnblock_bit(page, pfn, PB_unmapped));
	unmapped_alloc_drain(ut->nid);
	KUNIT_EXPECT_FALSE(test, get_pfnblock_bit(page, pfn, PB_unmapped));
}

/* r7: no split */

static void r7_no_split_of_whole_blocks(struct kunit *test)
{
	unsigned int order = *(unsigned int *)test->param_value;
	struct unmapped_test *ut = test->priv;
	unsigned long before = event(ut, DIRECT_MAP_LEVEL2_SPLIT);
	struct direct_map map = read_direct_map(ut);
	struct page *page;
	unsigned int i;

	skip_unless_large_map(test);
	kunit_activate_static_stub(test, unmapped_set_valid, record_set_valid);
	for (i = 0; i < 8; i++) {
		page = take(ut, GFP_KERNEL, order);
		stamp(page, 1U << order, 7);
		if (ut->before[ut->nr_before - 1].level >= PG_LEVEL_2M)
			KUNIT_EXPECT_EQ(test, mapping_of(page).level, PG_LEVEL_2M);
	}
	KUNIT_EXPECT_LE(test, read_direct_map(ut).size_4k, map.size_4k);
	give_all(ut);
	unmapped_alloc_drain(ut->nid);
	expect_whole_map(ut, &map);
	KUNIT_EXPECT_EQ(test, event(ut, DIRECT_MAP_LEVEL2_SPLIT), before);
}

static void vunmap_action(void *addr)
{
	vunmap(addr);
}

/* Single pages of a chunk, for vmap() */
static struct page **page_array(struct unmapped_test *ut, struct page *page,
				unsigned int nr)
{
	struct page **pages = kvmalloc_array(nr, sizeof(*pages), GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(ut->test, pages);
	for (i = 0; i < nr; i++)
		pages[i] = page + i;

	return pages;
}

static void *vmap_chunk(struct unmapped_test *ut, struct page *page,
			unsigned int nr)
{
	struct page **pages = page_array(ut, page, nr);
	void *addr = vmap(pages, nr, VM_MAP, PAGE_KERNEL);

	kvfree(pages);
	KUNIT_ASSERT_NOT_NULL(ut->test, addr);
	KUNIT_ASSERT_EQ(ut->test, 0,
			kunit_add_action_or_reset(ut->test, vunmap_action, addr));

	return addr;
}

static void r7_no_split_by_alias(struct kunit *test)
{
	static int (* const change[])(unsigned long addr, int numpages) = {
		set_memory_ro, set_memory_rw, set_memory_rox, set_memory_rw,
		set_memory_nx, set_memory_x, set_memory_nx,
	};
	struct unmapped_test *ut = test->priv;
	unsigned int i, nr = BLOCK_PAGES;
	struct direct_map map;
	struct page *page;
	void *addr;

	skip_unless_large_map(test);
	page = take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	addr = vmap_chunk(ut, page, nr);
	map = read_direct_map(ut);
	for (i = 0; i < ARRAY_SIZE(change); i++) {
		KUNIT_EXPECT_EQ(test, change[i]((unsigned long)addr, nr), 0);
		KUNIT_EXPECT_EQ(test, change[i]((unsigned long)addr, 1), 0);
		KUNIT_EXPECT_EQ_MSG(test, mapping_of(page).level, PG_LEVEL_2M,
				    "split by change %u", i);
		KUNIT_EXPECT_EQ(test, nr_present(page, nr), 0);
	}
	memset(addr, 0x77, PMD_SIZE);
	expect_same_map(ut, &map);

	kunit_release_action(test, vunmap_action, addr);
	give(ut, page);
	KUNIT_EXPECT_TRUE(test, is_zero(page, nr));
}

/* But one that is mapped by 4K has the attributes of its alias, as on the base */
static void alias_of_fallback_is_in_step(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	unsigned long addr;
	struct page *page;

	stub_get_pages(test, get_dirty_small_pages);
	page = take(ut, GFP_KERNEL, 0);
	addr = (unsigned long)vmap_chunk(ut, page, 1);
	KUNIT_EXPECT_EQ(test, set_memory_ro(addr, 1), 0);
	KUNIT_EXPECT_FALSE(test, mapping_of(page).flags & _PAGE_RW);
	KUNIT_EXPECT_EQ(test, set_memory_rw(addr, 1), 0);
	KUNIT_EXPECT_TRUE(test, mapping_of(page).flags & _PAGE_RW);
	KUNIT_EXPECT_EQ(test, nr_present(page, 1), 0);
}

/* What alloc_pages() promises */

static void order_is_as_from_alloc_pages(struct kunit *test)
{
	unsigned int order = *(unsigned int *)test->param_value;
	unsigned int i, nr = 1U << order;
	struct unmapped_test *ut = test->priv;
	struct page *page;

	/* Also after others used it */
	give(ut, take(ut, GFP_KERNEL, order));
	page = take(ut, GFP_KERNEL, order);
	KUNIT_EXPECT_TRUE(test, IS_ALIGNED(page_to_pfn(page), nr));
	KUNIT_EXPECT_EQ(test, page_count(page), 1);
	KUNIT_EXPECT_FALSE(test, PageCompound(page));
	KUNIT_EXPECT_EQ(test, page_private(page), 0);
	for (i = 0; i < nr; i++) {
		KUNIT_EXPECT_EQ(test, page_ref_count(page + i), !i);
		KUNIT_EXPECT_NULL(test, page[i].mapping);
		KUNIT_EXPECT_EQ(test, page_to_nid(page + i), ut->nid);
	}
	KUNIT_EXPECT_EQ(test, nr_used(ut), nr);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), BLOCK_PAGES - nr);
}

static void order_makes_a_folio(struct kunit *test)
{
	unsigned int order = *(unsigned int *)test->param_value;
	struct unmapped_test *ut = test->priv;
	struct page *page = take(ut, GFP_KERNEL | __GFP_COMP, order);
	struct folio *folio = page_folio(page);

	KUNIT_EXPECT_PTR_EQ(test, folio_page(folio, 0), page);
	KUNIT_EXPECT_EQ(test, folio_order(folio), order);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), 1);
	KUNIT_EXPECT_PTR_EQ(test, page_folio(page + (1U << order) - 1), folio);
	KUNIT_EXPECT_FALSE(test, folio_mapped(folio));
}

/* Chunks of the whole block never overlap, and merge again */
static void order_fills_a_block(struct kunit *test)
{
	unsigned int order = *(unsigned int *)test->param_value;
	unsigned int i, nr = BLOCK_PAGES >> order;
	struct unmapped_test *ut = test->priv;
	unsigned long before = event(ut, DIRECT_UNMAPPED_REFILL);
	struct page *page;

	for (i = 0; i < nr; i++)
		stamp(take(ut, GFP_KERNEL, order), 1U << order, 8);
	KUNIT_EXPECT_EQ(test, event(ut, DIRECT_UNMAPPED_REFILL), before + 1);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), 0);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);

	give_all(ut);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), BLOCK_PAGES);
	page = take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	KUNIT_EXPECT_EQ(test, event(ut, DIRECT_UNMAPPED_REFILL), before + 1);
	KUNIT_EXPECT_TRUE(test, is_zero(page, BLOCK_PAGES));
}

static struct page *take_from(struct unmapped_test *ut, gfp_t gfp, int nid)
{
	struct page *page = unmapped_pages_alloc(gfp, 0, nid);

	KUNIT_ASSERT_NOT_NULL(ut->test, page);
	hold(ut, page, 0);

	return page;
}

static void this_node_is_honoured(struct kunit *test)
{
	struct page *page;
	int nid;

	for_each_node_state(nid, N_MEMORY) {
		page = take_from(test->priv, GFP_KERNEL | __GFP_THISNODE, nid);
		KUNIT_EXPECT_EQ(test, page_to_nid(page), nid);
		KUNIT_EXPECT_FALSE(test, page_present(page));
	}
}

/* Skips the test if there is none */
static int other_memory_node(struct unmapped_test *ut)
{
	int other = next_memory_node(ut->nid);

	if (other == MAX_NUMNODES)
		other = first_memory_node;
	if (other == ut->nid)
		kunit_skip(ut->test, "there is one memory node only");

	return other;
}

/* What other nodes have cached serves those only who did not insist */
static void other_nodes_help_out(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	int other = other_memory_node(ut);
	struct page *page;

	take_from(ut, GFP_KERNEL | __GFP_THISNODE, other);
	stub_get_pages(test, fail_get_pages);
	expect_refused(ut, GFP_KERNEL | __GFP_THISNODE, 0);
	page = take_from(ut, GFP_KERNEL, ut->nid);
	KUNIT_EXPECT_EQ(test, page_to_nid(page), other);
}

/* Asked for a block: of this node, and of others */
static struct page *get_from_others(gfp_t gfp, unsigned int order, int nid,
				    nodemask_t *nodemask)
{
	struct unmapped_test *ut = current_ut();
	struct page *page;

	if (order < UNMAPPED_MAX_ORDER)
		return get_dirty_small_pages(gfp, order, nid, nodemask);

	ut->nr_asked[nid != ut->nid]++;
	if (nid != ut->other)
		return NULL;

	page = alloc_pages_node(nid, gfp, order);
	if (page)
		page_ref_freeze(page, 1);

	return page;
}

/* After there was no block, nobody asks for one for a while */
static void refills_are_rationed(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	unsigned int i, others = num_node_state(N_MEMORY) - 1;

	unmapped_retry_delay = 3600 * HZ;
	stub_get_pages(test, get_from_others);
	for (i = 0; i < 4; i++)
		take_from(ut, GFP_KERNEL, ut->nid);
	KUNIT_EXPECT_EQ(test, ut->nr_asked[0], 1);
	KUNIT_EXPECT_EQ(test, ut->nr_asked[1], others);

	/* These have nothing else to fall back on */
	expect_refused(ut, GFP_KERNEL | __GFP_NORETRY, 0);
	KUNIT_EXPECT_EQ(test, ut->nr_asked[0], 2);

	unmapped_retry_delay = 0;
	unmapped_alloc_reset();
	for (i = 0; i < 4; i++)
		take_from(ut, GFP_KERNEL, ut->nid);
	KUNIT_EXPECT_EQ(test, ut->nr_asked[0], 6);
	KUNIT_EXPECT_EQ(test, ut->nr_asked[1], 6 * others);
}

/*
 * Nor does that keep anybody from the blocks of other nodes, though somebody
 * who may not use them had none
 */
static void refills_are_rationed_by_source(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	nodemask_t only = nodemask_of_node(ut->nid);
	struct folio *folio;
	struct page *page;
	unsigned int i;

	ut->other = other_memory_node(ut);
	unmapped_retry_delay = 3600 * HZ;
	stub_get_pages(test, get_from_others);
	folio = __folio_alloc(GFP_KERNEL | __GFP_UNMAPPED, 0, ut->nid, &only);
	KUNIT_ASSERT_NOT_NULL(test, folio);
	hold(ut, &folio->page, 0);
	KUNIT_EXPECT_EQ(test, ut->nr_asked[1], 0);
	for (i = 0; i < 3; i++) {
		page = unmapped_pages_alloc(GFP_KERNEL, UNMAPPED_MAX_ORDER - 1, ut->nid);
		KUNIT_ASSERT_NOT_NULL(test, page);
		hold(ut, page, UNMAPPED_MAX_ORDER - 1);
		KUNIT_EXPECT_EQ(test, page_to_nid(page), ut->other);
	}
	KUNIT_EXPECT_EQ(test, ut->nr_asked[0], 1);
	KUNIT_EXPECT_EQ(test, ut->nr_asked[1], 2);
}

static void no_node_is_this_one(struct kunit *test)
{
	struct page *page = take_from(test->priv, GFP_KERNEL, NUMA_NO_NODE);

	KUNIT_EXPECT_FALSE(test, page_present(page));
}

/* The ways to free pages */

static void free_by_free_pages(struct page *page, unsigned int order)
{
	__free_pages(page, order);
}

static void free_by_address(struct page *page, unsigned int order)
{
	free_pages((unsigned long)page_address(page), order);
}

static void free_by_put_page(struct page *page, unsigned int order)
{
	put_page(page + (1U << order) - 1);
}

static void free_by_folio_put(struct page *page, unsigned int order)
{
	folio_put(page_folio(page));
}

static void free_by_folio_batch(struct page *page, unsigned int order)
{
	struct folio_batch batch;

	folio_batch_init(&batch);
	folio_batch_add(&batch, page_folio(page));
	folios_put(&batch);
}

/* With others, of one page each */
static void free_by_large_folio_batch(struct page *page, unsigned int order)
{
	struct folio_batch batch;
	unsigned int i;

	split_page(page, order);
	folio_batch_init(&batch);
	for (i = 0; i < 1U << order; i++)
		if (!folio_batch_add(&batch, page_folio(page + i)))
			folios_put(&batch);
	folios_put(&batch);
}

static void free_by_release_pages(struct page *page, unsigned int order)
{
	struct page *pages[FOLIO_BATCH_SIZE];
	unsigned int i, nr = 0;

	split_page(page, order);
	for (i = 0; i < 1U << order; i++) {
		pages[nr++] = page + i;
		if (nr == ARRAY_SIZE(pages)) {
			release_pages(pages, nr);
			nr = 0;
		}
	}
	release_pages(pages, nr);
}

static void free_one_by_one(struct page *page, unsigned int order)
{
	unsigned int i;

	split_page(page, order);
	for (i = 1U << order; i--;)
		__free_page(page + i);
}

/* The last reference is that of somebody who looked at the first page */
static void free_by_late_put_page(struct page *page, unsigned int order)
{
	get_page(page);
	__free_pages(page, order);
	put_page(page);
}

static void free_by_vfree(struct page *page, unsigned int order)
{
	unsigned int i, nr = 1U << order;
	struct page **pages = kvmalloc_array(nr, sizeof(*pages),
					     GFP_KERNEL | __GFP_NOFAIL);

	split_page(page, order);
	for (i = 0; i < nr; i++)
		pages[i] = page + i;
	vfree(vmap(pages, nr, VM_MAP | VM_MAP_PUT_PAGES, PAGE_KERNEL));
}

/* One by one where there is no such function */
static void free_single_pages(struct page *page, unsigned long nr)
{
#ifdef CONFIG_CONTIG_ALLOC
	free_contig_range(page_to_pfn(page), nr);
#else
	while (nr--)
		__free_page(page++);
#endif
}

static void free_contig(struct page *page, unsigned int order)
{
	split_page(page, order);
	free_single_pages(page, 1UL << order);
}

static void free_bh_off(struct page *page, unsigned int order)
{
	local_bh_disable();
	__free_pages(page, order);
	local_bh_enable();
}

static void free_locked(struct page *page, unsigned int order)
{
	static DEFINE_SPINLOCK(lock);
	unsigned long flags;

	spin_lock_irqsave(&lock, flags);
	__free_pages(page, order);
	spin_unlock_irqrestore(&lock, flags);
}

static void free_nolock(struct page *page, unsigned int order)
{
	free_pages_nolock(page, order);
}

static void free_nolock_raw(struct page *page, unsigned int order)
{
	static DEFINE_RAW_SPINLOCK(lock);
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	free_pages_nolock(page, order);
	raw_spin_unlock_irqrestore(&lock, flags);
}

struct free_irq_work {
	struct irq_work	work;
	struct page	*page;
	unsigned int	order;
	bool		in_hardirq;
};

static void free_irq_work_fn(struct irq_work *work)
{
	struct free_irq_work *f = container_of(work, struct free_irq_work, work);

	f->in_hardirq = in_hardirq();
	__free_pages(f->page, f->order);
}

/* Returns whether it was a hard interrupt: an idle CPU may need none */
static bool free_by_irq_work(struct page *page, unsigned int order, int cpu)
{
	struct free_irq_work f = {
		.work = IRQ_WORK_INIT(free_irq_work_fn),
		.page = page,
		.order = order,
	};

	irq_work_queue_on(&f.work, cpu);
	irq_work_sync(&f.work);

	return f.in_hardirq;
}

static void free_in_hardirq(struct page *page, unsigned int order)
{
	bool in_hardirq;

	migrate_disable();
	in_hardirq = free_by_irq_work(page, order, smp_processor_id());
	migrate_enable();
	KUNIT_EXPECT_TRUE(kunit_get_current_test(), in_hardirq);
}

static void free_on_other_cpu(struct page *page, unsigned int order)
{
	migrate_disable();
	free_by_irq_work(page, order,
			 cpumask_any_but(cpu_online_mask, smp_processor_id()));
	migrate_enable();
}

static const struct free_path {
	const char	*desc;
	void		(*free)(struct page *page, unsigned int order);
	gfp_t		gfp;
	bool		hardirq;
	bool		smp;
} free_paths[] = {
	{ "__free_pages", free_by_free_pages },
	{ "__free_pages of a folio", free_by_free_pages, .gfp = __GFP_COMP },
	{ "free_pages", free_by_address },
	{ "put_page", free_by_put_page, .gfp = __GFP_COMP },
	{ "folio_put", free_by_folio_put, .gfp = __GFP_COMP },
	{ "folios_put", free_by_folio_batch, .gfp = __GFP_COMP },
	{ "folios_put of single pages", free_by_large_folio_batch },
	{ "release_pages", free_by_release_pages },
	{ "one by one", free_one_by_one },
	{ "put_page after __free_pages", free_by_late_put_page },
	{ "vfree", free_by_vfree },
	{ "free_contig_range", free_contig },
	{ "softirqs off", free_bh_off },
	{ "spinlock held and interrupts off", free_locked },
	{ "free_pages_nolock", free_nolock },
	{ "free_pages_nolock under raw spinlock", free_nolock_raw },
	{ "hard interrupt", free_in_hardirq, .hardirq = true },
	{ "hard interrupt, folio", free_in_hardirq, .gfp = __GFP_COMP, .hardirq = true },
	{ "interrupt of another CPU", free_on_other_cpu, .hardirq = true, .smp = true },
};

KUNIT_ARRAY_PARAM_DESC(free_path, free_paths, desc);

static void skip_free_path(struct kunit *test, const struct free_path *path)
{
	if (path->hardirq && IS_ENABLED(CONFIG_PREEMPT_RT))
		kunit_skip(test, "no page is freed in hard interrupts on PREEMPT_RT");
	if (path->smp && num_online_cpus() == 1)
		kunit_skip(test, "there is one CPU only");
}

static void free_comes_back(struct kunit *test)
{
	const struct free_path *path = test->param_value;
	struct unmapped_test *ut = test->priv;
	unsigned int order, nr;
	struct page *page;

	skip_free_path(test, path);
	/* A page in use keeps one idle block from being returned */
	take(ut, GFP_KERNEL, 0);
	for (order = 0; order <= UNMAPPED_MAX_ORDER; order++) {
		nr = 1U << order;
		page = take(ut, GFP_KERNEL | path->gfp, order);
		stamp(page, nr, order);
		unhold(ut, page);

		path->free(page, order);
		flush_deferred(ut);
		KUNIT_EXPECT_EQ_MSG(test, nr_used(ut), 1, "order %u", order);
		KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);
		KUNIT_EXPECT_EQ(test, page_ref_count(page), 0);
		KUNIT_EXPECT_EQ(test, nr_present(page, nr), 0);
		KUNIT_EXPECT_TRUE(test, is_zero(page, nr));
	}
}

/* What cannot be wiped at once takes no lock, and is wiped later */
static void free_is_deferred(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *locked = take(ut, GFP_KERNEL, 0);
	struct page *large = take(ut, GFP_KERNEL, 3);
	unsigned long flags;
	long used[2];

	unhold(ut, locked);
	unhold(ut, large);
	local_irq_save(flags);
	free_pages_nolock(locked, 0);
	used[0] = nr_used(ut);
	__free_pages(large, 3);
	used[1] = nr_used(ut);
	local_irq_restore(flags);

	KUNIT_EXPECT_EQ(test, used[0], 9);
	KUNIT_EXPECT_EQ(test, used[1], 9);
	flush_deferred(ut);
	KUNIT_EXPECT_EQ(test, nr_used(ut), 0);
}

/* One call for pages of all kinds */
static void free_mixed_folio_batch(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page[FOLIO_BATCH_SIZE];
	struct folio_batch batch;
	unsigned int i;

	take(ut, GFP_KERNEL, 0);
	folio_batch_init(&batch);
	for (i = 0; i < FOLIO_BATCH_SIZE - 1; i++) {
		unsigned int order = i / 3;

		if (i % 3 == 1)
			page[i] = alloc_pages(GFP_KERNEL | __GFP_COMP, order);
		else
			page[i] = take(ut, GFP_KERNEL | __GFP_COMP, order);
		KUNIT_ASSERT_NOT_NULL(test, page[i]);
		stamp(page[i], 1U << order, 9);
		folio_batch_add(&batch, page_folio(page[i]));
	}
	while (i--)
		if (i % 3 != 1)
			unhold(ut, page[i]);

	folios_put(&batch);
	flush_deferred(ut);
	KUNIT_EXPECT_EQ(test, nr_used(ut), 1);
	for (i = 0; i < FOLIO_BATCH_SIZE - 1; i++)
		if (i % 3 != 1)
			KUNIT_EXPECT_TRUE(test, is_zero(page[i], 1U << i / 3));
}

/* Contiguous runs of pages, some of which are ours */

#define NR_RUN		MAX_ORDER_NR_PAGES

/**
 * struct mix - pages of a run
 * @desc: which of them are ours
 * @ours: is the page with this index?
 * @len: number of pages that are freed together
 */
struct mix {
	const char	*desc;
	bool		(*ours)(unsigned int i);
	unsigned int	len;
};

static const struct mix mixes[] = {
	{ "every page", every_page, NR_RUN },
	{ "every other page", every_other_page, NR_RUN },
	{ "every other page of a block", every_other_page, BLOCK_PAGES },
	{ "every other page of 16", every_other_page, 16 },
	{ "every other page of 8", every_other_page, 8 },
	{ "every other page of 2", every_other_page, 2 },
	{ "every other page of 11", every_other_page, 11 },
	{ "a few pages", a_few_pages, NR_RUN },
	{ "a few pages of 61", a_few_pages, 61 },
	{ "nearly all pages", nearly_all_pages, NR_RUN },
	{ "nearly all pages of 61", nearly_all_pages, 61 },
	{ "across blocks", across_blocks, NR_RUN },
	{ "first block", first_block, NR_RUN },
};

KUNIT_ARRAY_PARAM_DESC(mix, mixes, desc);

static void *vmap_and_unhold(struct unmapped_test *ut, struct page *page,
			     unsigned int nr)
{
	struct page **pages = page_array(ut, page, nr);
	void *addr = vmap(pages, nr, VM_MAP | VM_MAP_PUT_PAGES, PAGE_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(ut->test, addr);
	for (i = 0; i < nr; i++)
		unhold(ut, page + i);

	return addr;
}

static void vfree_run(struct unmapped_test *ut, struct page *page, unsigned int nr)
{
	void *addr = vmap_and_unhold(ut, page, nr);

	memset(addr, 0x5a, nr * PAGE_SIZE);
	vfree(addr);
	flush_deferred(ut);
}

static void free_mixed_run(struct kunit *test)
{
	const struct mix *mix = test->param_value;
	struct unmapped_test *ut = test->priv;
	struct direct_map map = read_direct_map(ut);
	unsigned int i, ours, nr = NR_RUN;
	struct page *page;

	page = take_ordinary(ut, MAX_PAGE_ORDER);
	ours = make_ours(ut, page, nr, mix->ours);
	KUNIT_EXPECT_EQ(test, nr_used(ut), ours);

	for (i = 0; i < nr; i += mix->len)
		vfree_run(ut, page + i, min(mix->len, nr - i));
	KUNIT_EXPECT_EQ(test, nr_used(ut), 0);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), ours);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);
	for (i = 0; i < nr; i++) {
		if (mix->ours(i)) {
			KUNIT_EXPECT_FALSE(test, page_present(page + i));
			KUNIT_EXPECT_TRUE(test, is_zero(page + i, 1));
		} else {
			expect_free_pages_present(test, page + i, 1);
		}
	}

	unmapped_alloc_drain(ut->nid);
	expect_free_pages_present(test, page, nr);
	if (!debug_pagealloc_enabled() && !IS_ENABLED(CONFIG_CPA_DEBUG))
		expect_whole_map(ut, &map);
}

static const unsigned int halves[] = { 0, 1 };

static void half_desc(const unsigned int *half, char *desc)
{
	strscpy(desc, *half ? "the second one" : "the first one", KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(half, halves, half_desc);

/* A block that is ours beside one that is not */
static void free_run_of_whole_block(struct kunit *test)
{
	unsigned int half = *(unsigned int *)test->param_value;
	struct unmapped_test *ut = test->priv;
	struct page *page, *block;

	page = take_ordinary(ut, MAX_PAGE_ORDER);
	block = page + half * BLOCK_PAGES;
	offer(ut, block, UNMAPPED_MAX_ORDER);
	stub_get_pages(test, get_offered_pages);
	KUNIT_ASSERT_PTR_EQ(test, take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER), block);
	kunit_deactivate_static_stub(test, unmapped_get_pages);
	split_held(ut, block);

	vfree_run(ut, page, NR_RUN);
	KUNIT_EXPECT_EQ(test, nr_used(ut), 0);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), BLOCK_PAGES);
	KUNIT_EXPECT_TRUE(test, is_zero(block, BLOCK_PAGES));
	KUNIT_EXPECT_EQ(test, nr_present(block, BLOCK_PAGES), 0);
}

/* Ordinary pages of a block of which we have a part stay ordinary */
static void free_ordinary_neighbours(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take_ordinary(ut, UNMAPPED_MAX_ORDER);
	unsigned int i;

	make_ours(ut, page, BLOCK_PAGES, every_other_page);
	for (i = 0; i < BLOCK_PAGES; i += 2) {
		memset(page_address(page + i), 0x11, PAGE_SIZE);
		KUNIT_EXPECT_FALSE(test, is_unmapped_page(page + i));
		KUNIT_EXPECT_TRUE(test, is_unmapped_page(page + i + 1));
		give(ut, page + i);
	}
	KUNIT_EXPECT_EQ(test, nr_used(ut), BLOCK_PAGES / 2);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), 0);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);
}

/* Fallback: single chunks when no block is to be had */

static void fallback_is_absent_and_zero(struct kunit *test)
{
	unsigned int order = *(unsigned int *)test->param_value;
	unsigned int nr = 1U << order;
	struct unmapped_test *ut = test->priv;
	unsigned long before = event(ut, DIRECT_UNMAPPED_FALLBACK);
	struct page *page;

	stub_get_pages(test, get_dirty_small_pages);
	page = take(ut, GFP_KERNEL, order);
	KUNIT_EXPECT_EQ(test, event(ut, DIRECT_UNMAPPED_FALLBACK), before + 1);
	KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page, nr), 0);
	KUNIT_EXPECT_TRUE(test, is_zero(page, nr));
	KUNIT_EXPECT_EQ(test, nr_used(ut), nr);

	/* Taken again before a block would be */
	kunit_deactivate_static_stub(test, unmapped_get_pages);
	stamp(page, nr, 10);
	give(ut, page);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), nr);
	KUNIT_EXPECT_PTR_EQ(test, take(ut, GFP_KERNEL, order), page);
	KUNIT_EXPECT_TRUE(test, is_zero(page, nr));

	give(ut, page);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_drain(ut->nid), nr);
	expect_free_pages_present(test, page, nr);
}

#define NR_TRIES	100

/*
 * Pages of the first block, or NULL. They cannot merge with those of the first
 * MiB, so they are a small chunk, among those that are handed out first.
 */
static struct page *take_low(struct unmapped_test *ut)
{
	gfp_t gfp = GFP_KERNEL | __GFP_THISNODE | __GFP_NORETRY | __GFP_NOWARN |
		    (IS_ENABLED(CONFIG_ZONE_DMA) ? GFP_DMA : GFP_DMA32);
	unsigned int i, order;
	struct page *page;

	nr_free_pages_drained();
	for (order = 0; order < UNMAPPED_MAX_ORDER; order++) {
		for (i = 0; i < NR_TRIES; i++) {
			page = alloc_pages_node(ut->nid, gfp, order);
			if (!hold_any(ut, page, order))
				break;
			if (page_to_pfn(page) < BLOCK_PAGES)
				return page;
		}
	}

	return NULL;
}

/* The zone begins inside this block */
static void fallback_of_first_block(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take_low(ut);

	if (!page)
		kunit_skip(test, "no page of the first block is to be had");

	split_held(ut, page);
	make_ours(ut, page, 1, every_page);
	KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page, 1), 0);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);
	give_all(ut);
	KUNIT_EXPECT_GE(test, unmapped_alloc_drain(ut->nid), 1);
	expect_free_pages_present(test, page, 1);
	KUNIT_EXPECT_FALSE(test, get_pfnblock_bit(page, page_to_pfn(page), PB_unmapped));
}

/* Also where only blocks cannot be made absent: their pages are used */
static void fallback_if_blocks_stay_present(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page;

	kunit_activate_static_stub(test, unmapped_set_valid, fail_set_valid_of_blocks);
	page = take(ut, GFP_KERNEL, 0);
	KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page, 1), 0);
	KUNIT_EXPECT_TRUE(test, is_zero(page, 1));
}

/* Give back */

static void idle_blocks_are_returned(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	unsigned long before = event(ut, DIRECT_UNMAPPED_RETURN);
	struct page *page[4];
	unsigned int i;

	unmapped_idle_delay = HZ;
	for (i = 0; i < ARRAY_SIZE(page); i++)
		page[i] = take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	for (i = 1; i < ARRAY_SIZE(page); i++)
		give(ut, page[i]);

	/* While pages are in use, one block stays */
	KUNIT_EXPECT_EQ(test, wait_for_cached(ut, BLOCK_PAGES), 0);
	give(ut, page[0]);
	KUNIT_EXPECT_EQ(test, wait_for_cached(ut, 0), 0);
	KUNIT_EXPECT_EQ(test, wait_for_event(ut, DIRECT_UNMAPPED_RETURN, before + 4), 0);
	for (i = 0; i < ARRAY_SIZE(page); i++)
		expect_free_pages_present(test, page[i], BLOCK_PAGES);
}

static void fallback_pages_are_returned(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take_ordinary(ut, UNMAPPED_MAX_ORDER);
	struct mapping before = mapping_of(page);
	unsigned int i;

	unmapped_idle_delay = HZ;
	unmapped_heal_delay = HZ;
	make_ours(ut, page, BLOCK_PAGES, every_other_page);
	for (i = 1; i < BLOCK_PAGES / 2; i += 2)
		give(ut, page + i);
	KUNIT_EXPECT_EQ(test, wait_for_cached(ut, 0), 0);
	KUNIT_EXPECT_EQ(test, wait_for_present(page, BLOCK_PAGES / 2), 0);
	for (i = 1; i < BLOCK_PAGES; i += 2) {
		if (i < BLOCK_PAGES / 2)
			expect_free_pages_present(test, page + i, 1);
		else
			KUNIT_EXPECT_FALSE(test, page_present(page + i));
	}

	give_all(ut);
	KUNIT_EXPECT_EQ(test, wait_for_cached(ut, 0), 0);
	KUNIT_EXPECT_EQ(test, wait_for_present(page, BLOCK_PAGES), 0);
	expect_free_pages_present(test, page, BLOCK_PAGES);
	skip_unless_large_map(test);
	KUNIT_EXPECT_EQ(test, wait_for_level(page, before.level), 0);
}

static void shrinker_returns_idle_blocks(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page[8], *used;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(page); i++)
		page[i] = take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	used = take(ut, GFP_KERNEL, 3);
	stamp(used, 8, 11);
	for (i = 0; i < ARRAY_SIZE(page); i++)
		give(ut, page[i]);

	drop_slab();
	KUNIT_EXPECT_EQ(test, nr_cached(ut), BLOCK_PAGES - 8);
	KUNIT_EXPECT_EQ(test, nr_used(ut), 8);
	KUNIT_EXPECT_TRUE(test, is_stamped(used, 8, 11));
	KUNIT_EXPECT_EQ(test, nr_present(used, 8), 0);
}

static void shrinker_returns_split_blocks(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page[8];
	unsigned int i;

	stub_get_pages(test, get_dirty_small_pages);
	for (i = 0; i < ARRAY_SIZE(page); i++)
		page[i] = take(ut, GFP_KERNEL, 0);
	for (i = 1; i < ARRAY_SIZE(page); i++)
		give(ut, page[i]);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), ARRAY_SIZE(page) - 1);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);

	drop_slab();
	KUNIT_EXPECT_EQ(test, nr_cached(ut), 0);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);
	for (i = 1; i < ARRAY_SIZE(page); i++)
		expect_free_pages_present(test, page[i], 1);
	KUNIT_EXPECT_FALSE(test, page_present(page[0]));
}

static void idle_blocks_are_available(struct kunit *test)
{
	long nr = 16 * BLOCK_PAGES, available, reclaimable;
	struct unmapped_test *ut = test->priv;
	unsigned int i;

	for (i = 0; i < 16; i++)
		take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	available = si_mem_available();
	reclaimable = node_stat(ut->nid, NR_KERNEL_MISC_RECLAIMABLE);
	KUNIT_EXPECT_EQ(test, reclaimable, ut->reclaimable);

	give_all(ut);
	reclaimable = node_stat(ut->nid, NR_KERNEL_MISC_RECLAIMABLE);
	KUNIT_EXPECT_EQ(test, reclaimable, ut->reclaimable + nr_cached(ut));
	/* Of what is reclaimable, up to a half is not counted */
	KUNIT_EXPECT_GE(test, si_mem_available(), available + nr / 2 - FREE_SLACK);

	/* A block of which a page is used is not idle */
	take(ut, GFP_KERNEL, 0);
	reclaimable = node_stat(ut->nid, NR_KERNEL_MISC_RECLAIMABLE);
	KUNIT_EXPECT_EQ(test, reclaimable,
			ut->reclaimable + round_down(nr_cached(ut), BLOCK_PAGES));
}

static void give_single_pages(struct unmapped_test *ut, struct page *page,
			      unsigned int nr)
{
	unsigned int i;

	split_held(ut, page);
	for (i = 0; i < nr; i++)
		give(ut, page + i * 2);
}

/* So that the others become idle */
static void fullest_block_is_used_first(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *idle, *full, *half, *page;
	unsigned int i;

	idle = take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	half = take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	full = take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	give_single_pages(ut, half, 200);
	give_single_pages(ut, full, 10);
	give(ut, idle);

	for (i = 0; i < 10 + 200; i++) {
		page = take(ut, GFP_KERNEL, 0);
		KUNIT_EXPECT_PTR_EQ(test, page - (page_to_pfn(page) % BLOCK_PAGES),
				    i < 10 ? full : half);
	}
	KUNIT_EXPECT_EQ(test, nr_cached(ut), BLOCK_PAGES);
	page = take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	KUNIT_EXPECT_PTR_EQ(test, page, idle);
}

/* Healing: large pages that others have split */

static int change_of_one(unsigned long addr, int numpages)
{
	return set_direct_map_invalid_noflush(virt_to_page((void *)addr));
}

static int undo_of_one(unsigned long addr, int numpages)
{
	int err = set_direct_map_default_noflush(virt_to_page((void *)addr));

	flush_tlb_kernel_range(addr, addr + PAGE_SIZE);

	return err;
}

static int change_of_array(unsigned long addr, int numpages)
{
	struct page *page = virt_to_page((void *)addr);

	return set_pages_array_wc(&page, 1);
}

static int undo_of_array(unsigned long addr, int numpages)
{
	struct page *page = virt_to_page((void *)addr);

	return set_pages_array_wb(&page, 1);
}

static const struct attr_change {
	const char	*desc;
	int		(*change)(unsigned long addr, int numpages);
	int		(*undo)(unsigned long addr, int numpages);
} attr_changes[] = {
	{ "uncached", set_memory_uc, set_memory_wb },
	{ "write-combining", set_memory_wc, set_memory_wb },
	{ "read-only", set_memory_ro, set_memory_rw },
	{ "not present", set_memory_np, set_memory_p },
	{ "array of pages", change_of_array, undo_of_array },
	{ "single page", change_of_one, undo_of_one },
};

KUNIT_ARRAY_PARAM_DESC(attr_change, attr_changes, desc);

/* A block of single ordinary pages, mapped by large pages */
static struct page *take_large(struct unmapped_test *ut, struct mapping *before)
{
	struct page *page = take_ordinary(ut, UNMAPPED_MAX_ORDER);

	*before = mapping_of(page);
	skip_unless_large_map(ut->test);
	skip_if_split(ut->test, before);

	return page;
}

static void heal_after_others(struct kunit *test)
{
	const struct attr_change *attr = test->param_value;
	struct unmapped_test *ut = test->priv;
	struct mapping before;
	struct page *page = take_large(ut, &before);
	unsigned long addr = (unsigned long)page_address(page + 7);
	struct direct_map map = read_direct_map(ut);

	KUNIT_ASSERT_EQ(test, attr->change(addr, 3), 0);
	unmapped_alloc_flush_heal();
	KUNIT_EXPECT_EQ(test, mapping_of(page).level, PG_LEVEL_4K);

	KUNIT_ASSERT_EQ(test, attr->undo(addr, 3), 0);
	KUNIT_EXPECT_EQ(test, mapping_of(page).level, PG_LEVEL_4K);
	unmapped_alloc_flush_heal();
	expect_mapping(test, page, &before);
	expect_same_map(ut, &map);
}

/* Without anybody who waits for it */
static void heal_by_itself(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct mapping before, now;
	struct page *page = take_large(ut, &before);
	unsigned long addr = (unsigned long)page_address(page);
	unsigned long start;
	unsigned int i;

	unmapped_heal_delay = HZ / 10;
	/* From the third time on it has to wait for longer than an attempt takes */
	for (i = 0; i < 4; i++) {
		start = jiffies;
		KUNIT_ASSERT_EQ(test, set_memory_ro(addr, 1), 0);
		KUNIT_ASSERT_EQ(test, set_memory_rw(addr, 1), 0);
		now = mapping_of(page);
		if (time_before(jiffies, start + unmapped_heal_delay))
			KUNIT_EXPECT_EQ(test, now.level, PG_LEVEL_4K);
		KUNIT_EXPECT_EQ(test, wait_for_level(page, before.level), 0);
	}
	expect_mapping(test, page, &before);
}

/* Whoever changes attributes back and forth does not split and heal for ever */
static void heal_is_limited(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct mapping before;
	struct page *page = take_large(ut, &before);
	unsigned long addr = (unsigned long)page_address(page);
	unsigned int i, healed = 0;

	for (i = 0; i < 100; i++) {
		KUNIT_ASSERT_EQ(test, set_memory_ro(addr, 1), 0);
		KUNIT_ASSERT_EQ(test, set_memory_rw(addr, 1), 0);
		unmapped_alloc_flush_heal();
		healed += mapping_of(page).level != PG_LEVEL_4K;
	}
	KUNIT_EXPECT_EQ(test, healed, 1);

	/* After its time it is healed nevertheless */
	unmapped_heal_delay = 1;
	msleep(100);
	unmapped_alloc_heal_later();
	unmapped_alloc_flush_heal();
	expect_mapping(test, page, &before);
}

struct lock_holder {
	struct work_struct work;
	struct completion locked, done;
};

/* Not in the test's task, which waits for others that take locks */
static void hold_page_tables(struct work_struct *work)
{
	struct lock_holder *holder = container_of(work, struct lock_holder, work);

	guard(mmap_read_lock)(&init_mm);
	complete(&holder->locked);
	wait_for_completion(&holder->done);
}

static bool heal_rests(struct kunit *test, struct page **page,
		       const struct mapping *before, unsigned int nr)
{
	struct lock_holder holder;
	unsigned long start, took;
	unsigned int i;
	bool rested;

	unmapped_heal_delay = 3600 * HZ;
	for (i = 0; i < nr; i++) {
		unsigned long addr = (unsigned long)page_address(page[i]);

		KUNIT_ASSERT_EQ(test, set_memory_ro(addr, 1), 0);
		KUNIT_ASSERT_EQ(test, set_memory_rw(addr, 1), 0);
	}
	unmapped_alloc_reset();
	unmapped_heal_delay = 1;

	init_completion(&holder.locked);
	init_completion(&holder.done);
	INIT_WORK_ONSTACK(&holder.work, hold_page_tables);
	queue_work(system_dfl_wq, &holder.work);
	wait_for_completion(&holder.locked);
	start = jiffies;
	unmapped_alloc_heal_later();
	unmapped_alloc_flush_heal();
	took = jiffies - start;
	KUNIT_EXPECT_EQ(test, mapping_of(page[0]).level, PG_LEVEL_4K);
	complete(&holder.done);
	flush_work(&holder.work);
	destroy_work_on_stack(&holder.work);

	start = jiffies;
	unmapped_alloc_heal_later();
	KUNIT_EXPECT_EQ(test, wait_for_level(page[0], before->level), 0);
	rested = jiffies - start >= 4 * took;
	for (i = 0; i < nr; i++) {
		KUNIT_EXPECT_EQ(test, wait_for_level(page[i], before[i].level), 0);
		expect_mapping(test, page[i], &before[i]);
	}

	return rested;
}

/*
 * The longer a look takes, here for a lock, the longer it is until the next one.
 * A slow machine may make it look short now and then, but not each time.
 */
static void heal_takes_its_share(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct mapping before[4];
	struct page *page[4];
	bool rested = false;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(page); i++)
		page[i] = take_large(ut, &before[i]);
	for (i = 0; i < 5 && !rested; i++)
		rested = heal_rests(test, page, before, ARRAY_SIZE(page));
	KUNIT_EXPECT_TRUE(test, rested);
}

/* A CPU that is coming up is not reached by flushes */
static void heal_not_during_cpu_hotplug(struct kunit *test)
{
#ifdef CONFIG_HOTPLUG_CPU
	struct unmapped_test *ut = test->priv;
	struct mapping before;
	struct page *page = take_large(ut, &before);
	unsigned long addr = (unsigned long)page_address(page);

	cpus_write_lock();
	KUNIT_EXPECT_EQ(test, set_memory_ro(addr, 1), 0);
	KUNIT_EXPECT_EQ(test, set_memory_rw(addr, 1), 0);
	KUNIT_EXPECT_EQ(test, set_direct_map_collapse(page, PMD_SIZE), -EAGAIN);
	KUNIT_EXPECT_EQ(test, mapping_of(page).level, PG_LEVEL_4K);
	cpus_write_unlock();

	unmapped_alloc_drain(ut->nid);
	expect_mapping(test, page, &before);
#else
	kunit_skip(test, "CONFIG_HOTPLUG_CPU is not set");
#endif
}

/* There is no way to make such a page an ordinary one again */
static void heal_not_where_4k_is_wanted(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct mapping before;
	struct page *page = take_large(ut, &before);

	KUNIT_ASSERT_EQ(test, set_memory_4k((unsigned long)page_address(page), BLOCK_PAGES), 0);
	unmapped_alloc_heal_later();
	unmapped_alloc_flush_heal();
	unmapped_alloc_drain(ut->nid);
	KUNIT_EXPECT_EQ(test, mapping_of(page).level, PG_LEVEL_4K);
}

/* A change of a whole block splits what is mapped by 1 GiB */
static void heal_gigabytes(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take_from_gigabyte(ut);
	struct direct_map map;
	struct mapping before;
	unsigned long addr;

	skip_unless_large_map(test);
	if (!page)
		kunit_skip(test, "no free memory is mapped by 1 GiB pages");

	map = read_direct_map(ut);
	before = mapping_of(page);
	addr = (unsigned long)page_address(page);
	KUNIT_ASSERT_EQ(test, set_memory_ro(addr, BLOCK_PAGES), 0);
	KUNIT_EXPECT_EQ(test, mapping_of(page).level, PG_LEVEL_2M);
	KUNIT_ASSERT_EQ(test, set_memory_rw(addr, BLOCK_PAGES), 0);
	unmapped_alloc_flush_heal();
	expect_mapping(test, page, &before);
	expect_same_map(ut, &map);
}

/* Collecting: pages of blocks that others have split */

static long nr_collected(struct unmapped_test *ut)
{
	return node_stat(ut->nid, NR_KERNEL_MISC_RECLAIMABLE) - ut->reclaimable;
}

/* Use all that is cached, so that there is demand, but no supply */
static void exhaust(struct unmapped_test *ut)
{
	do {
		take(ut, GFP_KERNEL, 0);
	} while (nr_cached(ut));
}

/* Has somebody a reference to the page, or to the first one of its chunk? */
static bool is_referenced(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);
	unsigned int order;

	for (order = 0; order <= MAX_PAGE_ORDER; order++)
		if (page_count(pfn_to_page(ALIGN_DOWN(pfn, 1UL << order))))
			return true;

	return false;
}

/* Pages of a block that nobody has, and that are not free either */
static unsigned int nr_lost(struct page *page)
{
	unsigned int i, nr = 0;

	schedule_on_each_cpu(drain_pcp_lists);
	for (i = 0; i < BLOCK_PAGES; i++) {
		struct page *p = page + i;

		/* Slabs and page tables have no references */
		nr += !is_referenced(p) && !page_has_type(p) &&
		      !PageCompound(p) && !is_free_buddy_page(p);
	}

	return nr;
}

/* A page that is just being taken or freed looks lost */
static void expect_none_lost(struct unmapped_test *ut, struct page *page)
{
	unsigned int nr;

	read_poll_timeout(nr_lost, nr, !nr, 20 * USEC_PER_MSEC, 60 * USEC_PER_SEC,
			  false, page);
	KUNIT_EXPECT_EQ(ut->test, nr, 0);
}

/* A block that somebody has split and goes on using, while there is demand */
static struct page *take_watched(struct unmapped_test *ut)
{
	struct mapping before;
	struct page *page = take_large(ut, &before);

	exhaust(ut);
	KUNIT_ASSERT_EQ(ut->test, set_memory_ro((unsigned long)page_address(page), 1), 0);
	unmapped_alloc_flush_heal();
	KUNIT_EXPECT_TRUE(ut->test, get_pfnblock_bit(page, page_to_pfn(page), PB_unmapped));
	KUNIT_EXPECT_FALSE(ut->test, is_unmapped_page(page));

	return page;
}

static void give_watched(struct unmapped_test *ut, struct page *page)
{
	KUNIT_ASSERT_EQ(ut->test, set_memory_rw((unsigned long)page_address(page), 1), 0);
	give_all(ut);
	unmapped_alloc_drain(ut->nid);
	KUNIT_EXPECT_FALSE(ut->test, get_pfnblock_bit(page, page_to_pfn(page), PB_unmapped));
	KUNIT_EXPECT_GE(ut->test, mapping_of(page).level, PG_LEVEL_2M);
	KUNIT_EXPECT_EQ(ut->test, nr_collected(ut), 0);
	expect_none_lost(ut, page);
}

static void free_dirty(struct unmapped_test *ut, struct page *page, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		memset(page_address(page + i), 0xa5, PAGE_SIZE);
		give(ut, page + i);
	}
}

#define NR_COLLECT	64

static void collect_what_is_freed(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take_watched(ut);
	unsigned long refills = event(ut, DIRECT_UNMAPPED_REFILL);
	unsigned long collected = event(ut, DIRECT_UNMAPPED_COLLECT);
	unsigned int i;

	free_dirty(ut, page + 1, NR_COLLECT);
	KUNIT_EXPECT_EQ(test, nr_collected(ut), NR_COLLECT);
	KUNIT_EXPECT_EQ(test, nr_present(page, BLOCK_PAGES), BLOCK_PAGES);

	/* Handed out before any other */
	for (i = 0; i < NR_COLLECT; i++) {
		struct page *p = take(ut, GFP_KERNEL, 0);

		KUNIT_EXPECT_TRUE(test, p > page && p <= page + NR_COLLECT);
		KUNIT_EXPECT_TRUE(test, is_unmapped_page(p));
		KUNIT_EXPECT_TRUE(test, is_zero(p, 1));
	}
	KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page + 1, NR_COLLECT), 0);
	KUNIT_EXPECT_EQ(test, event(ut, DIRECT_UNMAPPED_COLLECT), collected + NR_COLLECT);
	KUNIT_EXPECT_EQ(test, event(ut, DIRECT_UNMAPPED_REFILL), refills);
	KUNIT_EXPECT_EQ(test, nr_collected(ut), 0);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);

	give_watched(ut, page);
}

/* However many there are, the TLBs are flushed once */
static void collect_with_one_flush(struct kunit *test)
{
#ifdef CONFIG_DEBUG_TLBFLUSH
	struct unmapped_test *ut = test->priv;
	struct page *page = take_watched(ut);
	long least = LONG_MAX;
	unsigned int i;

	/* Others may flush at any time, but not all the time */
	for (i = 0; i < 5; i++) {
		struct flushes before, after;

		free_dirty(ut, page + 1 + i * NR_COLLECT, NR_COLLECT);
		before = count_flushes(ut);
		take(ut, GFP_KERNEL, 0);
		after = count_flushes(ut);
		KUNIT_EXPECT_EQ(test, nr_cached(ut), NR_COLLECT - 1);
		least = min(least, after.remote - before.remote + after.local - before.local);
		exhaust(ut);
	}
	KUNIT_EXPECT_LT(test, least, NR_COLLECT);
	give_watched(ut, page);
#else
	kunit_skip(test, "CONFIG_DEBUG_TLBFLUSH is not set, flushes are not counted");
#endif
}

/* In folio batches, and under zone->lock where the order is above the pcp limit */
static void collect_from_other_paths(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take_watched(ut);
	struct folio_batch batch;
	unsigned int i;

	folio_batch_init(&batch);
	for (i = 1; i <= FOLIO_BATCH_SIZE; i++) {
		unhold(ut, page + i);
		folio_batch_add(&batch, page_folio(page + i));
	}
	folios_put(&batch);
	KUNIT_EXPECT_EQ(test, nr_collected(ut), FOLIO_BATCH_SIZE);

	for (i = 0; i < NR_COLLECT; i++)
		unhold(ut, page + NR_COLLECT + i);
	free_single_pages(page + NR_COLLECT, NR_COLLECT);
	KUNIT_EXPECT_EQ(test, nr_collected(ut), FOLIO_BATCH_SIZE + NR_COLLECT);

	/* As one chunk */
	exhaust(ut);
	KUNIT_EXPECT_EQ(test, nr_collected(ut), 0);
	KUNIT_EXPECT_EQ(test, nr_present(page + NR_COLLECT, NR_COLLECT), 0);
	KUNIT_EXPECT_TRUE(test, is_zero(page + NR_COLLECT, NR_COLLECT));
	give_watched(ut, page);
}

static void collect_nothing_without_users(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct mapping before;
	struct page *page = take_large(ut, &before);

	KUNIT_ASSERT_EQ(test, set_memory_ro((unsigned long)page_address(page), 1), 0);
	unmapped_alloc_flush_heal();
	KUNIT_EXPECT_FALSE(test, get_pfnblock_bit(page, page_to_pfn(page), PB_unmapped));
	free_dirty(ut, page + 1, NR_COLLECT);
	KUNIT_EXPECT_EQ(test, nr_collected(ut), 0);
	give_watched(ut, page);
}

static void collect_no_more_than_a_block(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page[3];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(page); i++)
		page[i] = take_watched(ut);
	for (i = 0; i < ARRAY_SIZE(page); i++)
		free_dirty(ut, page[i] + 1, BLOCK_PAGES - 1);
	KUNIT_EXPECT_EQ(test, nr_collected(ut), BLOCK_PAGES);

	/* Under pressure they go first */
	drop_slab();
	KUNIT_EXPECT_EQ(test, nr_collected(ut), 0);

	for (i = 0; i < ARRAY_SIZE(page); i++)
		KUNIT_ASSERT_EQ(test, set_memory_rw((unsigned long)page_address(page[i]), 1), 0);
	for (i = 0; i < ARRAY_SIZE(page); i++)
		give_watched(ut, page[i]);
}

static void collect_until_nobody_needs_it(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page;
	bool watched;

	unmapped_idle_delay = HZ;
	page = take_watched(ut);
	free_dirty(ut, page + 1, NR_COLLECT);
	KUNIT_EXPECT_EQ(test, 0, read_poll_timeout(get_pfnblock_bit, watched, !watched,
						   20 * USEC_PER_MSEC, 60 * USEC_PER_SEC, false,
						   page, page_to_pfn(page), PB_unmapped));
	KUNIT_EXPECT_EQ(test, nr_collected(ut), 0);
	give_watched(ut, page);
}

/* Also where all of the direct map is mapped by PTEs, as with debug_pagealloc */
static void collect_beside_a_fallback(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take_ordinary(ut, 4);
	unsigned int i;

	offer(ut, page, 0);
	stub_get_pages(test, get_offered_pages);
	KUNIT_ASSERT_PTR_EQ(test, take(ut, GFP_KERNEL, 0), page);
	unmapped_alloc_flush_heal();
	for (i = 1; i < 16; i++)
		give(ut, page + i);
	/* Others may have freed pages there, too */
	KUNIT_EXPECT_GE(test, nr_collected(ut), 15);

	/* With all that is done to free pages: poisoned, cleared, unmapped */
	unmapped_alloc_drain(ut->nid);
	KUNIT_EXPECT_EQ(test, nr_collected(ut), 0);
}

/* No block is to be had */
static void collect_what_is_free(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct mapping before;
	struct page *page = take_large(ut, &before);
	unsigned long fallbacks, collected;
	struct direct_map map;
	unsigned int i = 0;
	struct page *p;

	free_dirty(ut, page + 1, 4 * NR_COLLECT);
	nr_free_pages_drained();
	exhaust(ut);
	KUNIT_ASSERT_EQ(test, set_memory_ro((unsigned long)page_address(page), 1), 0);
	unmapped_alloc_flush_heal();

	fallbacks = event(ut, DIRECT_UNMAPPED_FALLBACK);
	collected = event(ut, DIRECT_UNMAPPED_COLLECT_FREE);
	map = read_direct_map(ut);
	kunit_activate_static_stub(test, unmapped_get_pages, fail_get_pages);
	kunit_activate_static_stub(test, unmapped_get_contig, fail_get_contig);
	/* What others free there meanwhile is collected, and comes first */
	do {
		p = take(ut, GFP_KERNEL, 0);
		KUNIT_EXPECT_TRUE(test, p > page && p < page + BLOCK_PAGES);
		KUNIT_EXPECT_EQ(test, nr_present_on_cpus(p, 1), 0);
		KUNIT_EXPECT_TRUE(test, is_zero(p, 1));
	} while (event(ut, DIRECT_UNMAPPED_COLLECT_FREE) == collected && ++i < NR_COLLECT);
	KUNIT_EXPECT_GT(test, event(ut, DIRECT_UNMAPPED_COLLECT_FREE), collected);
	KUNIT_EXPECT_EQ(test, event(ut, DIRECT_UNMAPPED_FALLBACK), fallbacks);
	expect_same_map(ut, &map);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);
	kunit_deactivate_static_stub(test, unmapped_get_pages);

	give_watched(ut, page);
}

/* Half a block, whose type the page allocator changes if it is isolated */
static void collect_what_is_free_of_its_type(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct mapping before;
	struct page *page = take_large(ut, &before);
	enum migratetype type = get_pageblock_migratetype(page);

	if (type == MIGRATE_MOVABLE)
		kunit_skip(test, "the block came from compaction, which left its type");
	free_dirty(ut, page + BLOCK_PAGES / 2, BLOCK_PAGES / 2);
	nr_free_pages_drained();
	exhaust(ut);
	KUNIT_ASSERT_EQ(test, set_memory_ro((unsigned long)page_address(page), 1), 0);
	unmapped_alloc_flush_heal();

	KUNIT_EXPECT_GT(test, unmapped_collect_free(GFP_KERNEL, 0, ut->nid), 0);
	KUNIT_EXPECT_GT(test, nr_cached(ut), 0);
	KUNIT_EXPECT_EQ(test, get_pageblock_migratetype(page), type);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);

	give_watched(ut, page);
}

/* What is collapsed while somebody else has it isolated is not split again */
static void collect_nothing_of_isolated_block(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page = take_watched(ut);
	struct zone *zone = page_zone(page);
	bool isolated;

	scoped_guard(spinlock_irqsave, &zone->lock)
		isolated = pageblock_isolate_and_move_free_pages(zone, page);
	KUNIT_ASSERT_TRUE(test, isolated);
	KUNIT_EXPECT_EQ(test, set_memory_rw((unsigned long)page_address(page), 1), 0);
	unmapped_alloc_flush_heal();
	scoped_guard(spinlock_irqsave, &zone->lock)
		isolated = !pageblock_unisolate_and_move_free_pages(zone, page);
	KUNIT_ASSERT_FALSE(test, isolated);
	KUNIT_EXPECT_GE(test, mapping_of(page).level, PG_LEVEL_2M);
	KUNIT_EXPECT_FALSE(test, get_pfnblock_bit(page, page_to_pfn(page), PB_unmapped));

	free_dirty(ut, page + 1, NR_COLLECT);
	exhaust(ut);
	KUNIT_EXPECT_GE(test, mapping_of(page).level, PG_LEVEL_2M);
	give_watched(ut, page);
}

/* A larger free chunk is not lost when one block of it is taken */
static void blocks_of_larger_chunks(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	long free = nr_free_pages_drained();
	unsigned int i;

	for (i = 0; i < 32; i++)
		take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	give_all(ut);
	unmapped_alloc_drain(ut->nid);
	expect_not_leaked(ut, free);
}

KUNIT_DEFINE_ACTION_WRAPPER(put_file, fput, struct file *);

static long add_to_lru_batch(void *data)
{
	struct file *file = data;

	return PTR_ERR_OR_ZERO(shmem_read_folio(file->f_mapping, 0));
}

/*
 * A folio that waits in another CPU's batch to be put on the LRU, or NULL if
 * there is no such CPU. With a reference, so that it is not migrated.
 */
static struct folio *batched_folio(struct kunit *test)
{
	unsigned int cpu = raw_smp_processor_id();
	struct folio *folio;
	struct file *file;

	/* The other one is to stay the other one */
	KUNIT_ASSERT_EQ(test, 0, set_cpus_allowed_ptr(current, cpumask_of(cpu)));
	cpu = cpumask_any_but(cpu_online_mask, cpu);
	if (cpu >= nr_cpu_ids)
		return NULL;
	file = shmem_kernel_file_setup("batched", PAGE_SIZE, EMPTY_VMA_FLAGS);
	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, put_file, file));
	KUNIT_ASSERT_EQ(test, 0, work_on_cpu(cpu, add_to_lru_batch, file));
	/* shmem_read_folio() has left its reference to us */
	folio = filemap_get_folio(file->f_mapping, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	folio_put(folio);

	return folio;
}

/* The page allocator has no block, but movable memory */
static void refill_by_migration(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	unsigned long contig = event(ut, DIRECT_UNMAPPED_REFILL_CONTIG);
	unsigned long fallbacks = event(ut, DIRECT_UNMAPPED_FALLBACK);
	struct page *page;

	if (!IS_ENABLED(CONFIG_CONTIG_ALLOC))
		kunit_skip(test, "CONFIG_CONTIG_ALLOC is not set");

	kunit_activate_static_stub(test, unmapped_get_pages, fail_get_pages);
	kunit_activate_static_stub(test, unmapped_collect_free, fail_collect_free);
	page = take(ut, GFP_KERNEL, 0);
	KUNIT_EXPECT_EQ(test, event(ut, DIRECT_UNMAPPED_REFILL_CONTIG), contig + 1);
	KUNIT_EXPECT_EQ(test, event(ut, DIRECT_UNMAPPED_FALLBACK), fallbacks);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), BLOCK_PAGES - 1);
	KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page, 1), 0);
	KUNIT_EXPECT_TRUE(test, is_zero(page, 1));

	/* Not for those who do not want to wait, or must not start I/O */
	expect_refused(ut, GFP_KERNEL | __GFP_NORETRY, UNMAPPED_MAX_ORDER);
	expect_refused(ut, GFP_NOIO, UNMAPPED_MAX_ORDER);
}

#define NR_BATCHED	10

/*
 * Other CPUs are not asked to empty their LRU batches, and not waited for. They
 * do so by themselves now and then, but not each time.
 */
static void migration_waits_for_no_cpu(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	bool drained = true;
	unsigned int i;

	if (!IS_ENABLED(CONFIG_CONTIG_ALLOC))
		kunit_skip(test, "CONFIG_CONTIG_ALLOC is not set");

	kunit_activate_static_stub(test, unmapped_get_pages, fail_get_pages);
	for (i = 0; drained && i < NR_BATCHED; i++) {
		struct folio *folio = batched_folio(test);

		if (!folio)
			kunit_skip(test, "there is one CPU only");
		/* Or it was the last of a batch, or is large */
		if (!folio_test_lru(folio)) {
			unsigned long contig = event(ut, DIRECT_UNMAPPED_REFILL_CONTIG);

			take(ut, GFP_KERNEL, 0);
			KUNIT_EXPECT_EQ(test, event(ut, DIRECT_UNMAPPED_REFILL_CONTIG),
					contig + 1);
			drained = folio_test_lru(folio);
			give_all(ut);
			unmapped_alloc_drain(ut->nid);
		}
		folio_put(folio);
	}
	KUNIT_EXPECT_FALSE(test, drained);
}

/* Nor is it waited for that others migrate less. It ends, one way or the other. */
static void migration_gives_up(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	unsigned long nr = totalram_pages();
	struct page *page;

	if (!IS_ENABLED(CONFIG_CONTIG_ALLOC))
		kunit_skip(test, "CONFIG_CONTIG_ALLOC is not set");

	mod_node_page_state(NODE_DATA(ut->nid), NR_ISOLATED_ANON, nr);
	page = unmapped_get_contig(GFP_KERNEL, ut->nid);
	mod_node_page_state(NODE_DATA(ut->nid), NR_ISOLATED_ANON, -(long)nr);
	KUNIT_EXPECT_NULL(test, page);
}

#ifdef CONFIG_CONTIG_ALLOC
static void record_target(void *data, struct page *page, unsigned int order,
			  gfp_t gfp, int migratetype)
{
	struct unmapped_test *ut = data;

	if (current->kunit_test == ut->test && (gfp & __GFP_MOVABLE))
		ut->nr_targets[!!(gfp & __GFP_THISNODE)]++;
}

/* The last one of as many as fill a block, so that it has few neighbours of others */
static struct folio *movable_folio(struct kunit *test)
{
	struct folio *folio = NULL;
	struct file *file;
	unsigned int i;

	file = shmem_kernel_file_setup("movable", PMD_SIZE, EMPTY_VMA_FLAGS);
	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, put_file, file));
	for (i = 0; i < BLOCK_PAGES; i++) {
		if (folio)
			folio_put(folio);
		folio = shmem_read_folio(file->f_mapping, i);
		KUNIT_ASSERT_FALSE(test, IS_ERR(folio));
	}

	return folio;
}

/* Migrate what is in the block of a folio as a refill does */
static void migrate_block(struct unmapped_test *ut, struct folio *folio)
{
	unsigned long pfn = ALIGN_DOWN(folio_pfn(folio), BLOCK_PAGES);
	struct page *page = pfn_to_page(pfn);

	folio_put(folio);
	lru_add_drain_all();
	if (register_trace_mm_page_alloc(record_target, ut))
		kunit_skip(ut->test, "CONFIG_TRACEPOINTS is not set");
	if (!alloc_contig_frozen_range(pfn, pfn + BLOCK_PAGES, ACR_FLAGS_ASYNC,
				       GFP_KERNEL | __GFP_COMP | __GFP_NOWARN)) {
		set_page_count(page, 1);
		__free_pages(page, UNMAPPED_MAX_ORDER);
	}
	unregister_trace_mm_page_alloc(record_target, ut);
	tracepoint_synchronize_unregister();
}
#endif

/* Others may have bound their memory to its node */
static void migration_keeps_to_the_node(struct kunit *test)
{
#ifdef CONFIG_CONTIG_ALLOC
	struct unmapped_test *ut = test->priv;
	unsigned int i;

	/* There may be something unmovable beside the folio */
	for (i = 0; i < NR_TRIES && !ut->nr_targets[1]; i++) {
		migrate_block(ut, movable_folio(test));
		KUNIT_ASSERT_EQ(test, ut->nr_targets[0], 0);
	}
	KUNIT_EXPECT_GT(test, ut->nr_targets[1], 0);
#else
	kunit_skip(test, "CONFIG_CONTIG_ALLOC is not set");
#endif
}

/* Placement: few gigabytes are split */

#define NR_NEAR		16

static unsigned long gigabyte_of(const struct page *page)
{
	return page_to_pfn(page) >> (PUD_SHIFT - PAGE_SHIFT);
}

/* Blocks of two gigabytes of a zone, freed and so handed out by turns */
static void blocks_are_near_each_other(struct kunit *test)
{
	unsigned long giga[2] = { ULONG_MAX, ULONG_MAX };
	struct page *blocks[2][NR_NEAR] = {}, *page;
	struct unmapped_test *ut = test->priv;
	unsigned int i, g, nr[2] = {}, changes = 0;

	while (nr[0] < NR_NEAR || nr[1] < NR_NEAR) {
		page = alloc_pages_node(ut->nid, GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN |
					__GFP_THISNODE, UNMAPPED_MAX_ORDER);
		if (!page || si_mem_available() < totalram_pages() / 8)
			kunit_skip(test, "there are not two gigabytes of free memory");
		hold(ut, page, UNMAPPED_MAX_ORDER);
		/* What is in smaller zones is used up, as it would come first */
		if (page_zone(page)->spanned_pages < 2 * (PUD_SIZE >> PAGE_SHIFT))
			continue;
		for (g = 0; g < 2; g++) {
			if (giga[g] == ULONG_MAX)
				giga[g] = gigabyte_of(page);
			if (giga[g] == gigabyte_of(page))
				break;
		}
		/* Neighbours would be merged */
		if (g < 2 && nr[g] < NR_NEAR && page_to_pfn(page) / BLOCK_PAGES % 2)
			blocks[g][nr[g]++] = page;
	}
	for (i = 0; i < NR_NEAR; i++)
		for (g = 0; g < 2; g++)
			give(ut, blocks[g][i]);
	nr_free_pages_drained();

	/* Half of them, as others may take some, or free a block elsewhere */
	giga[0] = gigabyte_of(take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER));
	for (i = 1; i < NR_NEAR / 2; i++) {
		giga[1] = gigabyte_of(take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER));
		changes += giga[1] != giga[0];
		giga[0] = giga[1];
	}
	KUNIT_EXPECT_LE(test, changes, 2);
}

/* Bad memory: what memory_failure() finds in the cache is not handed out again */
static void poisoned_pages_are_kept_out(struct kunit *test)
{
#ifdef CONFIG_MEMORY_FAILURE
	struct unmapped_test *ut = test->priv;
	struct page *page = take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	struct page *bad = page + 77;
	unsigned int i;

	give(ut, page);
	SetPageHWPoison(bad);

	/* Neither to the page allocator, nor to a user: and only this one */
	unmapped_alloc_drain(ut->nid);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), BLOCK_PAGES - 1);
	KUNIT_EXPECT_EQ(test, nr_used(ut), 1);
	KUNIT_EXPECT_FALSE(test, page_present(bad));
	for (i = 1; i < BLOCK_PAGES; i++) {
		struct page *p = take(ut, GFP_KERNEL, 0);

		KUNIT_EXPECT_TRUE(test, p >= page && p < page + BLOCK_PAGES);
		KUNIT_EXPECT_PTR_NE(test, p, bad);
	}
	KUNIT_EXPECT_EQ(test, nr_cached(ut), 0);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);

	ClearPageHWPoison(bad);
	set_page_count(bad, 1);
	hold(ut, bad, 0);
#else
	kunit_skip(test, "CONFIG_MEMORY_FAILURE is not set");
#endif
}

#ifdef CONFIG_MIGRATION
/* Whoever else had the page is done with it, now that it is being migrated */
static struct folio *drop_user(struct folio *src, unsigned long private)
{
	folio_put(src);
	return folio_alloc(GFP_KERNEL, 0);
}

static void drop_target(struct folio *dst, unsigned long private)
{
	folio_put(dst);
}
#endif

/*
 * A folio of the page cache may be on its way to be migrated when it is
 * truncated. It has no mapping then that would refuse, and is not to be copied.
 */
static void migration_copies_no_orphans(struct kunit *test)
{
#ifdef CONFIG_MIGRATION
	struct unmapped_test *ut = test->priv;
	struct page *page = take(ut, GFP_KERNEL, 0);
	struct folio *folio = page_folio(page);
	LIST_HEAD(list);

	unhold(ut, page);
	/* As folio_isolate_lru() does */
	folio_get(folio);
	node_stat_mod_folio(folio, NR_ISOLATED_ANON + folio_is_file_lru(folio), 1);
	list_add(&folio->lru, &list);

	KUNIT_EXPECT_EQ(test, 0, migrate_pages(&list, drop_user, drop_target, 0,
					       MIGRATE_SYNC, MR_SYSCALL, NULL));
	if (!list_empty(&list))
		putback_movable_pages(&list);
	lru_add_drain_all();
	KUNIT_EXPECT_EQ(test, nr_used(ut), 0);
#else
	kunit_skip(test, "CONFIG_MIGRATION is not set");
#endif
}

/* Nor is it to be pinned, by those who look up a page table as it is cleared */

static int insert_page(struct file *file, struct vm_area_struct *vma)
{
	return vm_insert_page(vma, vma->vm_start, file->private_data);
}

static const struct file_operations insert_page_fops = {
	.mmap = insert_page,
};

static void fast_gup_takes_no_orphans(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *absent = take(ut, GFP_KERNEL, 0);
	struct page *pages[] = { absent, take_ordinary(ut, 0) };
	unsigned int i;

	KUNIT_ASSERT_EQ(test, kunit_attach_mm(), 0);
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		struct page *pinned = NULL;
		unsigned long addr;
		struct file *file;

		file = anon_inode_getfile("unmapped_alloc", &insert_page_fops, pages[i], O_RDWR);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, file);
		addr = vm_mmap(file, 0, PAGE_SIZE, PROT_READ, MAP_SHARED, 0);
		fput(file);
		KUNIT_ASSERT_FALSE(test, IS_ERR_VALUE(addr));

		if (pages[i] == absent)
			KUNIT_EXPECT_EQ(test, 0, get_user_pages_fast_only(addr, 1, 0, &pinned));
		else
			KUNIT_EXPECT_EQ(test, 1, get_user_pages_fast(addr, 1, 0, &pinned));
		if (pinned)
			put_page(pinned);
		KUNIT_EXPECT_EQ(test, vm_munmap(addr, PAGE_SIZE), 0);
	}
}

static void counters_add_up(struct kunit *test)
{
	unsigned int order = *(unsigned int *)test->param_value;
	struct unmapped_test *ut = test->priv;
	unsigned int nr = 1U << order;
	struct page *page[3];
	unsigned int i;
	long used = 0;

	for (i = 0; i < ARRAY_SIZE(page); i++) {
		page[i] = take(ut, GFP_KERNEL, order);
		used += nr;
		KUNIT_EXPECT_EQ(test, nr_used(ut), used);
		KUNIT_EXPECT_EQ(test, nr_cached(ut), round_up(used, BLOCK_PAGES) - used);
		KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);
	}
	for (i = 0; i < ARRAY_SIZE(page); i++) {
		give(ut, page[i]);
		used -= nr;
		KUNIT_EXPECT_EQ(test, nr_used(ut), used);
		KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);
	}
}

/* Accounting: pages handed out are charged, the refill is not */

#ifdef CONFIG_MEMCG
static int write_cgroup_file(struct vfsmount *mnt, const char *name, const char *text)
{
	struct file *file = file_open_root_mnt(mnt, name, O_WRONLY, 0);
	ssize_t ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = kernel_write(file, text, strlen(text), NULL);
	fput(file);

	return ret < 0 ? ret : 0;
}

static int make_cgroup(struct vfsmount *mnt)
{
	struct dentry *root = mnt->mnt_root, *dir;
	int err;

	err = write_cgroup_file(mnt, "cgroup.subtree_control", "+memory");
	if (err)
		return err;

	dir = start_creating_noperm(root, &QSTR("unmapped_kunit"));
	if (!IS_ERR(dir))
		dir = vfs_mkdir(&nop_mnt_idmap, d_inode(root), dir, 0755, NULL);
	err = PTR_ERR_OR_ZERO(dir);
	end_creating(dir);

	return err;
}

static void remove_cgroup(void *data)
{
	struct vfsmount *mnt = data;
	struct dentry *root = mnt->mnt_root, *dir;

	dir = start_removing_noperm(root, &QSTR("unmapped_kunit"));
	if (!IS_ERR(dir)) {
		vfs_rmdir(&nop_mnt_idmap, d_inode(root), dir, NULL);
		end_removing(dir);
	}
	write_cgroup_file(mnt, "cgroup.subtree_control", "-memory");
	kern_unmount(mnt);
}

static void put_memcg(void *memcg)
{
	mem_cgroup_put(memcg);
}

/* A memory cgroup that exists until the end of the test */
static struct mem_cgroup *take_memcg(struct kunit *test)
{
	struct cgroup_subsys_state *css;
	struct vfsmount *mnt;
	struct file *dir;

	mnt = kern_mount(get_fs_type("cgroup2"));
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, mnt);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, remove_cgroup, mnt), 0);
	KUNIT_ASSERT_EQ(test, make_cgroup(mnt), 0);

	dir = file_open_root_mnt(mnt, "unmapped_kunit", O_RDONLY | O_DIRECTORY, 0);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dir);
	css = css_tryget_online_from_dir(file_dentry(dir), &memory_cgrp_subsys);
	fput(dir);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, css);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, put_memcg,
							mem_cgroup_from_css(css)), 0);

	return mem_cgroup_from_css(css);
}

static bool is_charged(struct page *page, struct mem_cgroup *memcg)
{
	struct folio *folio = page_folio(page);

	guard(rcu)();
	return folio_memcg_kmem(folio) && folio_memcg(folio) == memcg;
}

static struct page *alloc_in_memcg(struct unmapped_test *ut, struct mem_cgroup *memcg,
				   unsigned int order)
{
	struct mem_cgroup *old = set_active_memcg(memcg);
	struct page *page;

	page = unmapped_pages_alloc(GFP_KERNEL_ACCOUNT | __GFP_NORETRY, order, ut->nid);
	set_active_memcg(old);
	if (page)
		hold(ut, page, order);

	return page;
}

static void account_charges_what_is_used(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct mem_cgroup *memcg;
	struct page *page;

	if (mem_cgroup_disabled() || !cgroup_subsys_on_dfl(memory_cgrp_subsys))
		kunit_skip(test, "no memory controller in the cgroup2 hierarchy");

	memcg = take_memcg(test);
	page = alloc_in_memcg(ut, memcg, 2);
	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_EXPECT_TRUE(test, is_charged(page, memcg));
	KUNIT_EXPECT_FALSE(test, is_charged(page + 4, memcg));
	KUNIT_EXPECT_LT(test, page_counter_read(&memcg->memory), BLOCK_PAGES);
	give(ut, page);
	KUNIT_EXPECT_FALSE(test, is_charged(page, memcg));

	KUNIT_EXPECT_FALSE(test, is_charged(take(ut, GFP_KERNEL, 2), memcg));
}

static void account_keeps_limits(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct mem_cgroup *memcg;

	if (mem_cgroup_disabled() || !cgroup_subsys_on_dfl(memory_cgrp_subsys))
		kunit_skip(test, "no memory controller in the cgroup2 hierarchy");

	memcg = take_memcg(test);
	KUNIT_ASSERT_EQ(test, page_counter_set_max(&memcg->memory, 3), 0);
	KUNIT_EXPECT_NULL(test, alloc_in_memcg(ut, memcg, 2));
	KUNIT_EXPECT_EQ(test, nr_used(ut), 0);
	KUNIT_EXPECT_NOT_NULL(test, alloc_in_memcg(ut, memcg, 1));
}
#else
static void account_charges_what_is_used(struct kunit *test)
{
	kunit_skip(test, "CONFIG_MEMCG is not set");
}

static void account_keeps_limits(struct kunit *test)
{
	kunit_skip(test, "CONFIG_MEMCG is not set");
}
#endif

/* __GFP_UNMAPPED: the functions that return pages */

/**
 * struct page_interface - a way to allocate pages
 * @desc: its name
 * @alloc: returns the first page, or NULL
 * @max_order: largest order that it can be asked for
 */
struct page_interface {
	const char	*desc;
	struct page	*(*alloc)(gfp_t gfp, unsigned int order, int nid);
	unsigned int	max_order;
};

static struct page *by_alloc_pages(gfp_t gfp, unsigned int order, int nid)
{
	return alloc_pages(gfp, order);
}

static struct page *by_alloc_page(gfp_t gfp, unsigned int order, int nid)
{
	return alloc_page(gfp);
}

static struct page *by_alloc_pages_node(gfp_t gfp, unsigned int order, int nid)
{
	return alloc_pages_node(nid, gfp, order);
}

static struct page *by_folio_alloc(gfp_t gfp, unsigned int order, int nid)
{
	struct folio *folio = folio_alloc(gfp, order);

	return folio ? &folio->page : NULL;
}

static struct page *by_folio_alloc_node(gfp_t gfp, unsigned int order, int nid)
{
	struct folio *folio = __folio_alloc_node(gfp, order, nid);

	return folio ? &folio->page : NULL;
}

static struct page *by_folio_alloc_mpol(gfp_t gfp, unsigned int order, int nid)
{
	struct folio *folio = folio_alloc_mpol(gfp, order, get_task_policy(current),
					       NO_INTERLEAVE_INDEX, nid);

	return folio ? &folio->page : NULL;
}

/* Of one page they would make no batch */
static struct page *first_of_two(struct page **pages)
{
	if (pages[1])
		__free_page(pages[1]);

	return pages[0];
}

static struct page *by_bulk(gfp_t gfp, unsigned int order, int nid)
{
	struct page *pages[2] = {};

	alloc_pages_bulk_node(gfp, nid, 2, pages);

	return first_of_two(pages);
}

#ifdef CONFIG_NUMA
static struct page *by_bulk_mempolicy(gfp_t gfp, unsigned int order, int nid)
{
	struct page *pages[2] = {};

	alloc_pages_bulk_mempolicy(gfp, 2, pages);

	return first_of_two(pages);
}
#endif

static struct page *by_unmapped_pages_alloc(gfp_t gfp, unsigned int order, int nid)
{
	return unmapped_pages_alloc(gfp, order, nid);
}

static const struct page_interface page_interfaces[] = {
	{ "alloc_pages", by_alloc_pages, MAX_PAGE_ORDER },
	{ "alloc_page", by_alloc_page, 0 },
	{ "alloc_pages_node", by_alloc_pages_node, MAX_PAGE_ORDER },
	{ "folio_alloc", by_folio_alloc, MAX_PAGE_ORDER },
	{ "folio_alloc_node", by_folio_alloc_node, MAX_PAGE_ORDER },
	{ "folio_alloc_mpol", by_folio_alloc_mpol, MAX_PAGE_ORDER },
	{ "alloc_pages_bulk_node", by_bulk, 0 },
#ifdef CONFIG_NUMA
	{ "alloc_pages_bulk_mempolicy", by_bulk_mempolicy, 0 },
#endif
	{ "unmapped_pages_alloc", by_unmapped_pages_alloc, MAX_PAGE_ORDER },
};

KUNIT_ARRAY_PARAM_DESC(page_interface, page_interfaces, desc);

/* r1 and r2 for each of them, by a hit and by a refill */
static void flag_gives_absent_pages(struct kunit *test)
{
	const struct page_interface *interface = test->param_value;
	struct unmapped_test *ut = test->priv;
	unsigned int order, last, round;
	struct page *page;

	last = min(interface->max_order, UNMAPPED_MAX_ORDER);
	for (order = 0; order <= last; order++) {
		for (round = 0; round < 2; round++) {
			page = hold_any(ut, interface->alloc(GFP_KERNEL | __GFP_UNMAPPED,
							     order, ut->nid), order);
			KUNIT_ASSERT_NOT_NULL(test, page);
			KUNIT_EXPECT_TRUE(test, is_unmapped_page(page));
			KUNIT_EXPECT_EQ(test, nr_present_on_cpus(page, 1U << order), 0);
			KUNIT_EXPECT_TRUE(test, is_zero(page, 1U << order));
			KUNIT_EXPECT_EQ(test, page_count(page), 1);
			KUNIT_EXPECT_EQ(test, nr_used(ut), 1 << order);
			stamp(page, 1U << order, order);
			give(ut, page);
			KUNIT_EXPECT_EQ(test, nr_used(ut), 0);
		}
		unmapped_alloc_drain(ut->nid);
	}
}

/* r3 for each of them */
static void flag_is_closed(struct kunit *test)
{
	const struct page_interface *interface = test->param_value;
	const gfp_t gfp = GFP_KERNEL | __GFP_NOWARN | __GFP_UNMAPPED;
	struct unmapped_test *ut = test->priv;
	unsigned int order;

	for (order = UNMAPPED_MAX_ORDER + 1; order <= interface->max_order; order++)
		KUNIT_EXPECT_NULL(test, hold_any(ut, interface->alloc(gfp, order, ut->nid),
						 order));
	/* Not even from the cache */
	give(ut, take(ut, GFP_KERNEL, 0));
	KUNIT_EXPECT_GT(test, nr_cached(ut), 0);
	KUNIT_EXPECT_NULL(test, hold_any(ut, interface->alloc(gfp | __GFP_DMA, 0, ut->nid),
					 0));
	KUNIT_EXPECT_NULL(test, hold_any(ut, interface->alloc(gfp | __GFP_DMA32, 0, ut->nid),
					 0));
	unmapped_alloc_drain(ut->nid);
	KUNIT_EXPECT_NULL(test, hold_any(ut, interface->alloc(GFP_NOWAIT | __GFP_UNMAPPED,
							      0, ut->nid), 0));
	stub_get_pages(test, fail_get_pages);
	KUNIT_EXPECT_NULL(test, hold_any(ut, interface->alloc(gfp, 0, ut->nid), 0));
	kunit_deactivate_static_stub(test, unmapped_get_pages);
	kunit_activate_static_stub(test, unmapped_set_valid, fail_set_valid);
	KUNIT_EXPECT_NULL(test, hold_any(ut, interface->alloc(gfp, 0, ut->nid), 0));
}

/* What returns addresses in the direct map has none to return */
static void flag_is_refused(struct kunit *test)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_NOWARN | __GFP_UNMAPPED;
	struct unmapped_test *ut = test->priv;
	struct page_frag_cache frags = {};
	void *objects[4] = {}, *old;
	struct kmem_cache *cache;
	mempool_t *pool;

	/* Refused even where there are objects at hand */
	take(ut, GFP_KERNEL, 0);
	KUNIT_EXPECT_EQ(test, __get_free_pages(gfp, 0), 0);
	KUNIT_EXPECT_EQ(test, __get_free_pages(gfp, 3), 0);
	KUNIT_EXPECT_EQ(test, get_zeroed_page(gfp), 0);
	KUNIT_EXPECT_NULL(test, alloc_pages_exact(3 * PAGE_SIZE, gfp));
#ifdef CONFIG_MEMORY_HOTPLUG /* __meminit */
	KUNIT_EXPECT_NULL(test, alloc_pages_exact_nid(ut->nid, 3 * PAGE_SIZE, gfp));
#endif
	/* With DEBUG_VM these warn of all flags that they do not know */
	kunit_warning_suppress(test) {
		KUNIT_EXPECT_NULL(test, alloc_pages_nolock(__GFP_UNMAPPED, ut->nid, 0));
		KUNIT_EXPECT_NULL(test, kmalloc_nolock(64, __GFP_NOWARN | __GFP_UNMAPPED,
						       ut->nid));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test,
						      IS_ENABLED(CONFIG_DEBUG_VM) ? 2 : 0);
	}
	KUNIT_EXPECT_NULL(test, kmalloc(64, gfp));
	KUNIT_EXPECT_NULL(test, kzalloc(64, gfp));
	KUNIT_EXPECT_NULL(test, kmalloc_node(64, gfp, ut->nid));
	KUNIT_EXPECT_NULL(test, kmalloc(KMALLOC_MAX_CACHE_SIZE + 1, gfp));

	old = kmalloc(64, GFP_KERNEL);
	KUNIT_EXPECT_NULL(test, krealloc(old, 32, gfp));
	KUNIT_EXPECT_NULL(test, krealloc(old, 128, gfp));
	kfree(old);

	KUNIT_EXPECT_NULL(test, (__force void *)__alloc_percpu_gfp(64, 8, gfp));
	old = page_frag_alloc(&frags, 64, GFP_KERNEL);
	KUNIT_EXPECT_NOT_NULL(test, old);
	KUNIT_EXPECT_NULL(test, page_frag_alloc(&frags, 64, gfp));
	page_frag_free(old);
	page_frag_cache_drain(&frags);
	pool = mempool_create_kmalloc_pool(2, 64);
	KUNIT_ASSERT_NOT_NULL(test, pool);
	KUNIT_EXPECT_NULL(test, mempool_alloc(pool, gfp));
	mempool_destroy(pool);
	pool = mempool_create_page_pool(2, 0);
	KUNIT_ASSERT_NOT_NULL(test, pool);
	KUNIT_EXPECT_NULL(test, hold_any(ut, mempool_alloc(pool, gfp), 0));
	mempool_destroy(pool);

	cache = kmem_cache_create("unmapped_kunit", 64, 0, 0, NULL);
	KUNIT_ASSERT_NOT_NULL(test, cache);
	KUNIT_EXPECT_NULL(test, kmem_cache_alloc(cache, gfp));
	KUNIT_EXPECT_EQ(test, kmem_cache_alloc_bulk(cache, gfp, ARRAY_SIZE(objects),
						    objects), 0);
	kmem_cache_destroy(cache);
#ifdef CONFIG_CONTIG_ALLOC
	KUNIT_EXPECT_NULL(test, alloc_contig_pages(BLOCK_PAGES, gfp, ut->nid, NULL));
#endif
	KUNIT_EXPECT_EQ(test, nr_used(ut), 1);
}

/* Whoever asks for what cannot be learns of it */
static void flag_is_refused_loudly(struct kunit *test)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_UNMAPPED;
	mempool_t *pool = mempool_create_page_pool(2, 0);

	KUNIT_ASSERT_NOT_NULL(test, pool);

	kunit_warning_suppress(test) {
		KUNIT_EXPECT_EQ(test, __get_free_pages(gfp, 0), 0);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
		KUNIT_EXPECT_NULL(test, kmalloc(64, gfp));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 2);
		KUNIT_EXPECT_NULL(test, kmalloc(KMALLOC_MAX_CACHE_SIZE + 1, gfp));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 3);
		KUNIT_EXPECT_NULL(test, (__force void *)__alloc_percpu_gfp(64, 8, gfp));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 4);
		KUNIT_EXPECT_NULL(test, mempool_alloc(pool, gfp));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 5);

		KUNIT_EXPECT_NULL(test, kmalloc(64, gfp | __GFP_NOWARN));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 5);
	}
	mempool_destroy(pool);
}

/* Neither new objects nor those that are there already */
static void flag_is_refused_by_sheaves(struct kunit *test)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_NOWARN | __GFP_UNMAPPED;
	struct kmem_cache *cache;
	struct slab_sheaf *sheaf;
	unsigned int i, size;
	void *object;

	cache = kmem_cache_create("unmapped_kunit", 64, 0, 0, NULL);
	KUNIT_ASSERT_NOT_NULL(test, cache);
	for (i = 1; i < 1000; i *= 4) {
		sheaf = kmem_cache_prefill_sheaf(cache, GFP_KERNEL, i);
		KUNIT_ASSERT_NOT_NULL(test, sheaf);
		KUNIT_EXPECT_NULL(test, kmem_cache_alloc_from_sheaf(cache, gfp, sheaf));
		object = kmem_cache_alloc_from_sheaf(cache, GFP_KERNEL, sheaf);
		KUNIT_EXPECT_NOT_NULL(test, object);
		size = kmem_cache_sheaf_size(sheaf);
		KUNIT_EXPECT_EQ(test, kmem_cache_refill_sheaf(cache, gfp, &sheaf, size),
				-ENOMEM);
		KUNIT_EXPECT_EQ(test, kmem_cache_refill_sheaf(cache, gfp, &sheaf, size + 1),
				-ENOMEM);
		if (object)
			kmem_cache_free(cache, object);
		/* Back as it is, for the next who asks on this CPU */
		kmem_cache_return_sheaf(cache, GFP_KERNEL, sheaf);
		sheaf = kmem_cache_prefill_sheaf(cache, gfp, i);
		KUNIT_EXPECT_NULL(test, sheaf);
		if (sheaf)
			kmem_cache_return_sheaf(cache, GFP_KERNEL, sheaf);
	}
	kmem_cache_destroy(cache);
}

/* A device that reaches all memory: its zone is no reason to refuse */
static struct device *take_device(struct kunit *test)
{
	const struct platform_device_info info = {
		.name = "unmapped_kunit",
		.id = PLATFORM_DEVID_NONE,
		.dma_mask = DMA_BIT_MASK(64),
	};
	struct platform_device *pdev;

	pdev = kunit_platform_device_register_full(test, &info);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, pdev);

	return &pdev->dev;
}

static void flag_is_refused_by_dma(struct kunit *test)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_UNMAPPED;
	struct device *dev = take_device(test);
	struct dma_pool *pool;
	struct sg_table *sgt;
	struct page *page;
	dma_addr_t addr;
	void *p;

	p = dma_alloc_coherent(dev, PAGE_SIZE, &addr, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, p);
	dma_free_coherent(dev, PAGE_SIZE, p, addr);
	page = dma_alloc_pages(dev, PAGE_SIZE, &addr, DMA_BIDIRECTIONAL, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, page);
	dma_free_pages(dev, PAGE_SIZE, page, addr, DMA_BIDIRECTIONAL);
	sgt = dma_alloc_noncontiguous(dev, PAGE_SIZE, DMA_BIDIRECTIONAL, GFP_KERNEL, 0);
	KUNIT_ASSERT_NOT_NULL(test, sgt);
	dma_free_noncontiguous(dev, PAGE_SIZE, sgt, DMA_BIDIRECTIONAL);
	pool = dma_pool_create("unmapped_kunit", dev, 64, 64, 0);
	KUNIT_ASSERT_NOT_NULL(test, pool);
	p = dma_pool_alloc(pool, GFP_KERNEL, &addr);
	KUNIT_EXPECT_NOT_NULL(test, p);
	dma_pool_free(pool, p, addr);

	kunit_warning_suppress(test) {
		KUNIT_EXPECT_NULL(test, dma_alloc_coherent(dev, PAGE_SIZE, &addr, gfp));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
		KUNIT_EXPECT_NULL(test, dma_alloc_pages(dev, PAGE_SIZE, &addr,
							DMA_BIDIRECTIONAL, gfp));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 2);
		KUNIT_EXPECT_NULL(test, dma_alloc_noncontiguous(dev, PAGE_SIZE,
								DMA_BIDIRECTIONAL, gfp, 0));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 3);
		/* Even where there are blocks at hand */
		KUNIT_EXPECT_NULL(test, dma_pool_alloc(pool, gfp, &addr));
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 4);
	}
	dma_pool_destroy(pool);
}

#ifdef CONFIG_MEMCG
/* Whichever function they were asked from, and never beyond a limit */
static void flag_with_account(struct kunit *test)
{
	const gfp_t gfp = GFP_KERNEL_ACCOUNT | __GFP_NORETRY | __GFP_UNMAPPED;
	const struct page_interface *interface = test->param_value;
	struct unmapped_test *ut = test->priv;
	struct mem_cgroup *memcg, *old;
	struct page *page, *beyond;

	if (mem_cgroup_disabled() || !cgroup_subsys_on_dfl(memory_cgrp_subsys))
		kunit_skip(test, "no memory controller in the cgroup2 hierarchy");

	memcg = take_memcg(test);
	old = set_active_memcg(memcg);
	page = interface->alloc(gfp, 0, ut->nid);
	KUNIT_EXPECT_EQ(test, page_counter_set_max(&memcg->memory, BLOCK_PAGES - 1), 0);
	beyond = interface->alloc(gfp, UNMAPPED_MAX_ORDER, ut->nid);
	set_active_memcg(old);

	hold_any(ut, page, 0);
	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_EXPECT_TRUE(test, is_charged(page, memcg));
	KUNIT_EXPECT_FALSE(test, page_present(page));
	give(ut, page);
	KUNIT_EXPECT_FALSE(test, is_charged(page, memcg));
	/* Those that know no orders have given a page */
	hold_any(ut, beyond, 0);
	KUNIT_EXPECT_EQ(test, !beyond, interface->max_order > 0);
}
#else
static void flag_with_account(struct kunit *test)
{
	kunit_skip(test, "CONFIG_MEMCG is not set");
}
#endif

/* The array has holes to be filled, what is in it already stays */
static void bulk_fills_holes(struct kunit *test)
{
	unsigned int i, filled, nr = 2 * BLOCK_PAGES;
	struct unmapped_test *ut = test->priv;
	struct page **pages, *other;

	pages = kunit_kcalloc(test, nr, sizeof(*pages), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);
	other = take_ordinary(ut, 0);
	for (i = 0; i < nr; i++)
		if (hash_32(i, 2) == 0)
			pages[i] = other;

	filled = alloc_pages_bulk_node(GFP_KERNEL | __GFP_THISNODE | __GFP_UNMAPPED,
				       ut->nid, nr, pages);
	KUNIT_EXPECT_EQ(test, filled, nr);
	for (i = 0; i < filled; i++) {
		if (hash_32(i, 2) == 0) {
			KUNIT_EXPECT_PTR_EQ(test, pages[i], other);
			continue;
		}
		hold(ut, pages[i], 0);
		KUNIT_EXPECT_FALSE(test, page_present(pages[i]));
		KUNIT_EXPECT_TRUE(test, is_zero(pages[i], 1));
	}
}

/* All that is cached is taken at once, and nothing that is not */
static void bulk_without_reclaim(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	unsigned int i, filled, nr = 2 * BLOCK_PAGES;
	struct page **pages;

	pages = kunit_kcalloc(test, nr, sizeof(*pages), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pages);
	take(ut, GFP_KERNEL, 0);
	filled = alloc_pages_bulk_node(GFP_NOWAIT | __GFP_THISNODE | __GFP_UNMAPPED,
				       ut->nid, nr, pages);
	KUNIT_EXPECT_EQ(test, filled, BLOCK_PAGES - 1);
	for (i = 0; i < nr; i++) {
		KUNIT_EXPECT_EQ(test, !!pages[i], i < filled);
		if (pages[i])
			hold(ut, pages[i], 0);
	}
	KUNIT_EXPECT_EQ(test, nr_cached(ut), 0);
}

/* What the flags that come with it mean */

static const struct modifier {
	const char	*desc;
	gfp_t		gfp;
	gfp_t		passed_on;
	gfp_t		kept_back;
} modifiers[] = {
	{ "GFP_KERNEL", GFP_KERNEL, GFP_KERNEL, __GFP_UNMAPPED },
	{ "GFP_NOFS", GFP_NOFS, __GFP_IO, __GFP_FS },
	{ "GFP_NOIO", GFP_NOIO, __GFP_DIRECT_RECLAIM, __GFP_IO | __GFP_FS },
	{ "GFP_USER", GFP_USER, __GFP_HARDWALL, 0 },
	{ "GFP_HIGHUSER_MOVABLE", GFP_HIGHUSER_MOVABLE, 0, __GFP_HIGHMEM | __GFP_MOVABLE },
	{ "__GFP_THISNODE", GFP_KERNEL | __GFP_THISNODE, __GFP_THISNODE, 0 },
	{ "__GFP_ZERO", GFP_KERNEL | __GFP_ZERO, 0, __GFP_ZERO },
	{ "__GFP_NOWARN", GFP_KERNEL | __GFP_NOWARN, __GFP_NOWARN, 0 },
	{ "__GFP_NORETRY", GFP_KERNEL | __GFP_NORETRY, __GFP_NORETRY, 0 },
	{ "__GFP_RETRY_MAYFAIL", GFP_KERNEL | __GFP_RETRY_MAYFAIL, __GFP_RETRY_MAYFAIL, 0 },
	{ "__GFP_NOFAIL", GFP_KERNEL | __GFP_NOFAIL, __GFP_NOFAIL, 0 },
	{ "__GFP_ACCOUNT", GFP_KERNEL_ACCOUNT, 0, __GFP_ACCOUNT },
};

KUNIT_ARRAY_PARAM_DESC(modifier, modifiers, desc);

/* As the page allocator is told where there is no block to be had */
static void flag_with_modifier(struct kunit *test)
{
	const struct modifier *modifier = test->param_value;
	gfp_t gfp = modifier->gfp | __GFP_UNMAPPED;
	struct unmapped_test *ut = test->priv;
	struct page *page;

	stub_get_pages(test, record_get_pages);
	/* Those for blocks, one of each node */
	if (!(gfp & __GFP_NORETRY))
		ut->nr_failures = gfp & __GFP_THISNODE ? 1 : num_node_state(N_MEMORY);
	page = hold_any(ut, alloc_pages_node(ut->nid, gfp, 0), 0);
	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_EXPECT_FALSE(test, page_present(page));
	KUNIT_EXPECT_TRUE(test, is_zero(page, 1));
	KUNIT_EXPECT_TRUE_MSG(test, (ut->gfp & modifier->passed_on) == modifier->passed_on,
			      "gfp %pGg", &ut->gfp);
	KUNIT_EXPECT_FALSE_MSG(test, ut->gfp & modifier->kept_back, "gfp %pGg", &ut->gfp);
	KUNIT_EXPECT_EQ(test, ut->gfp_nid, ut->nid);
}

static void expect_passed_on(struct unmapped_test *ut,
			     const struct page_interface *interface, gfp_t passed_on)
{
	int nid;

	hold_any(ut, interface->alloc(GFP_KERNEL | __GFP_UNMAPPED, 0, ut->nid), 0);
	KUNIT_EXPECT_TRUE_MSG(ut->test, (ut->gfp & (__GFP_IO | __GFP_FS)) == passed_on,
			      "gfp %pGg", &ut->gfp);
	give_all(ut);
	for_each_node_state(nid, N_MEMORY)
		unmapped_alloc_drain(nid);
}

static void flag_in_scope(struct kunit *test)
{
	const struct page_interface *interface = test->param_value;
	struct unmapped_test *ut = test->priv;
	unsigned int scope;

	stub_get_pages(test, record_get_pages);
	expect_passed_on(ut, interface, __GFP_IO | __GFP_FS);
	scope = memalloc_nofs_save();
	expect_passed_on(ut, interface, __GFP_IO);
	memalloc_nofs_restore(scope);
	scope = memalloc_noio_save();
	expect_passed_on(ut, interface, 0);
	memalloc_noio_restore(scope);
}

/* Nor does the cache itself do what the caller must not, where it has no block */
static void flag_in_scope_of_fallback(struct kunit *test)
{
	const gfp_t mask = __GFP_DIRECT_RECLAIM | __GFP_IO | __GFP_FS;
	struct unmapped_test *ut = test->priv;

	stub_get_pages(test, get_dirty_small_pages);
	kunit_activate_static_stub(test, unmapped_new_block, record_new_block);
	take(ut, GFP_NOFS, 0);
	KUNIT_EXPECT_TRUE(test, (ut->gfp_block & mask) == (__GFP_DIRECT_RECLAIM | __GFP_IO));
	ut->gfp_block = 0;
	take(ut, GFP_NOIO, 0);
	KUNIT_EXPECT_TRUE(test, (ut->gfp_block & mask) == __GFP_DIRECT_RECLAIM);
}

/* Page tables for those who do not try hard are no reason to use reserves */
static void flag_uses_no_reserves(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;

	kunit_activate_static_stub(test, unmapped_set_valid, record_reserves);
	take(ut, GFP_KERNEL | __GFP_NORETRY, UNMAPPED_MAX_ORDER);
	take(ut, GFP_KERNEL | __GFP_RETRY_MAYFAIL, UNMAPPED_MAX_ORDER);
	stub_get_pages(test, get_dirty_small_pages);
	take(ut, GFP_KERNEL | __GFP_RETRY_MAYFAIL, 0);
	KUNIT_EXPECT_FALSE(test, ut->reserves);
}

static void flag_with_nofail(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page;

	stub_get_pages(test, record_get_pages);
	ut->nr_failures = 20;
	page = hold_any(ut, alloc_pages_node(ut->nid, GFP_KERNEL | __GFP_NOFAIL |
					     __GFP_UNMAPPED, 0), 0);
	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_EXPECT_FALSE(test, page_present(page));
	KUNIT_EXPECT_EQ(test, ut->nr_failures, 0);
}

/* It cannot be had without waiting, and nobody waits who must not */
static void flag_with_nofail_in_atomic(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page;

	kunit_warning_suppress(test) {
		page = hold_any(ut, alloc_pages_node(ut->nid, GFP_NOWAIT | __GFP_NOFAIL |
						     __GFP_UNMAPPED, 0), 0);
		KUNIT_EXPECT_NULL(test, page);
		KUNIT_EXPECT_SUPPRESSED_WARNING_COUNT(test, 1);
	}
}

/* A cached page or a block, but no large page is split for it */
static void flag_with_noretry(struct kunit *test)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_NORETRY | __GFP_UNMAPPED;
	struct unmapped_test *ut = test->priv;
	struct page *page;

	stub_get_pages(test, get_dirty_small_pages);
	KUNIT_EXPECT_NULL(test, hold_any(ut, alloc_pages_node(ut->nid, gfp, 0), 0));
	page = hold_any(ut, alloc_pages_node(ut->nid, gfp & ~__GFP_NORETRY, 0), 0);
	KUNIT_EXPECT_NOT_NULL(test, page);
	if (page)
		give(ut, page);
	page = hold_any(ut, alloc_pages_node(ut->nid, gfp, 0), 0);
	KUNIT_EXPECT_NOT_NULL(test, page);
}

static void flag_makes_compound_pages(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page;

	page = hold_any(ut, alloc_pages_node(ut->nid, GFP_KERNEL | __GFP_COMP |
					     __GFP_UNMAPPED, 3), 3);
	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_EXPECT_EQ(test, compound_order(page), 3);

	page = hold_any(ut, alloc_pages_node(ut->nid, GFP_KERNEL | __GFP_UNMAPPED, 3), 3);
	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_EXPECT_FALSE(test, PageCompound(page));
}

#ifdef CONFIG_NUMA
static const struct policy {
	const char	*desc;
	unsigned short	mode;
} policies[] = {
	{ "MPOL_BIND", MPOL_BIND },
	{ "MPOL_PREFERRED", MPOL_PREFERRED },
	{ "MPOL_PREFERRED_MANY", MPOL_PREFERRED_MANY },
	{ "MPOL_INTERLEAVE", MPOL_INTERLEAVE },
	{ "MPOL_WEIGHTED_INTERLEAVE", MPOL_WEIGHTED_INTERLEAVE },
};

static struct mempolicy *set_policy(struct mempolicy *pol)
{
	struct mempolicy *old = current->mempolicy;

	task_lock(current);
	current->mempolicy = pol;
	task_unlock(current);

	return old;
}

static void expect_node(struct unmapped_test *ut, struct mempolicy *pol, int nid)
{
	struct page *page, *pages[8] = {};
	struct mempolicy *old;
	unsigned int i;

	old = set_policy(pol);
	page = alloc_pages(GFP_KERNEL | __GFP_UNMAPPED, 0);
	alloc_pages_bulk_mempolicy(GFP_KERNEL | __GFP_UNMAPPED, ARRAY_SIZE(pages), pages);
	set_policy(old);

	hold_any(ut, page, 0);
	KUNIT_ASSERT_NOT_NULL(ut->test, page);
	KUNIT_EXPECT_EQ(ut->test, page_to_nid(page), nid);
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		hold_any(ut, pages[i], 0);
		KUNIT_EXPECT_NOT_NULL(ut->test, pages[i]);
		if (pages[i])
			KUNIT_EXPECT_EQ(ut->test, page_to_nid(pages[i]), nid);
	}
}

/* All nodes have cached pages, those of the node that is asked for are taken */
static void expect_each_node(struct unmapped_test *ut, unsigned short mode,
			     bool by_home_node)
{
	int nid;

	for_each_node_state(nid, N_MEMORY)
		take_from(ut, GFP_KERNEL | __GFP_THISNODE, nid);
	for_each_node_state(nid, N_MEMORY) {
		struct mempolicy pol = {
			.refcnt = ATOMIC_INIT(1),
			.mode = mode,
			.nodes = by_home_node ? node_states[N_MEMORY] :
						nodemask_of_node(nid),
			.home_node = by_home_node ? nid : NUMA_NO_NODE,
		};

		expect_node(ut, &pol, nid);
	}
}

static void flag_with_policy(struct kunit *test)
{
	const struct policy *policy = test->param_value;

	expect_each_node(test->priv, policy->mode, false);
}

static void flag_with_home_node(struct kunit *test)
{
	expect_each_node(test->priv, MPOL_BIND, true);
}

/* Without one that is bound to get it elsewhere, rather nothing */
static void flag_with_strict_policy(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct mempolicy pol = {
		.refcnt = ATOMIC_INIT(1),
		.mode = MPOL_BIND,
		.nodes = nodemask_of_node(ut->nid),
		.home_node = NUMA_NO_NODE,
	}, *old;
	struct page *page, *of_bulk;

	take_from(ut, GFP_KERNEL | __GFP_THISNODE, other_memory_node(ut));
	stub_get_pages(test, fail_get_pages);
	old = set_policy(&pol);
	page = alloc_pages(GFP_KERNEL | __GFP_UNMAPPED, 0);
	of_bulk = by_bulk_mempolicy(GFP_KERNEL | __GFP_UNMAPPED, 0, ut->nid);
	set_policy(old);
	KUNIT_EXPECT_NULL(test, hold_any(ut, page, 0));
	KUNIT_EXPECT_NULL(test, hold_any(ut, of_bulk, 0));
}
#else
static const struct policy {
	const char	*desc;
} policies[] = {
	{ "none" },
};

static void flag_with_policy(struct kunit *test)
{
	kunit_skip(test, "CONFIG_NUMA is not set");
}

static void flag_with_home_node(struct kunit *test)
{
	kunit_skip(test, "CONFIG_NUMA is not set");
}

static void flag_with_strict_policy(struct kunit *test)
{
	kunit_skip(test, "CONFIG_NUMA is not set");
}
#endif

KUNIT_ARRAY_PARAM_DESC(policy, policies, desc);

#ifdef CONFIG_CPUSETS
/* As if the task were in a cpuset that has that node only */
static struct page *alloc_in_cpuset(struct unmapped_test *ut, gfp_t gfp, int allowed)
{
	const struct page_interface *interface = ut->test->param_value;
	nodemask_t old = current->mems_allowed;
	struct page *page;

	cpuset_inc();
	current->mems_allowed = nodemask_of_node(allowed);
	page = interface->alloc(gfp | __GFP_UNMAPPED, 0, ut->nid);
	current->mems_allowed = old;
	cpuset_dec();

	return hold_any(ut, page, 0);
}

/* Cached pages of nodes that are not in the cpuset are not for its tasks */
static void flag_with_cpuset(struct kunit *test)
{
	static const gfp_t gfps[] = { GFP_USER, GFP_KERNEL };
	struct unmapped_test *ut = test->priv;
	int other = other_memory_node(ut);
	struct page *page;
	unsigned int i;

	take_from(ut, GFP_KERNEL | __GFP_THISNODE, other);
	stub_get_pages(test, fail_get_pages);
	KUNIT_EXPECT_NULL(test, alloc_in_cpuset(ut, GFP_USER, ut->nid));
	/* Unless they cannot wait */
	page = alloc_in_cpuset(ut, GFP_ATOMIC, ut->nid);
	KUNIT_EXPECT_NOT_NULL(test, page);
	kunit_deactivate_static_stub(test, unmapped_get_pages);

	take_from(ut, GFP_KERNEL | __GFP_THISNODE, ut->nid);
	for (i = 0; i < ARRAY_SIZE(gfps); i++) {
		page = alloc_in_cpuset(ut, gfps[i], other);
		KUNIT_ASSERT_NOT_NULL(test, page);
		KUNIT_EXPECT_EQ(test, page_to_nid(page), other);
	}
}
#else
static void flag_with_cpuset(struct kunit *test)
{
	kunit_skip(test, "CONFIG_CPUSETS is not set");
}
#endif

/* __GFP_UNMAPPED: the functions that return virtual addresses */

static void *by_vmalloc_node(size_t size, gfp_t gfp)
{
	return __vmalloc_node(size, 1, gfp, numa_mem_id(), __builtin_return_address(0));
}

static void *by_vmalloc(size_t size, gfp_t gfp)
{
	return __vmalloc(size, gfp);
}

static void *by_vmalloc_huge(size_t size, gfp_t gfp)
{
	return vmalloc_huge(size, gfp);
}

static void *by_kvmalloc(size_t size, gfp_t gfp)
{
	return kvmalloc(size, gfp);
}

static void *by_vrealloc(size_t size, gfp_t gfp)
{
	void *old = vzalloc(2 * size);
	void *new = old ? vrealloc(old, size, gfp) : NULL;

	if (!new)
		vfree(old);

	return new;
}

static void *by_kvrealloc(size_t size, gfp_t gfp)
{
	void *old = kzalloc(64, GFP_KERNEL);
	void *new = old ? kvrealloc(old, size, gfp) : NULL;

	if (!new)
		kfree(old);

	return new;
}

static const struct area_interface {
	const char	*desc;
	void		*(*alloc)(size_t size, gfp_t gfp);
} area_interfaces[] = {
	{ "__vmalloc", by_vmalloc },
	{ "__vmalloc_node", by_vmalloc_node },
	{ "vmalloc_huge", by_vmalloc_huge },
	{ "kvmalloc", by_kvmalloc },
	{ "vrealloc", by_vrealloc },
	{ "kvrealloc", by_kvrealloc },
};

KUNIT_ARRAY_PARAM_DESC(area_interface, area_interfaces, desc);

static const size_t area_sizes[] = {
	64, PAGE_SIZE, 5 * PAGE_SIZE, PMD_SIZE, PMD_SIZE + PAGE_SIZE, 3 * PMD_SIZE,
};

static void vfree_action(void *addr)
{
	vfree(addr);
}

static unsigned int nr_present_in_area(const void *addr, unsigned int nr)
{
	unsigned int i, present = 0;

	for (i = 0; i < nr; i++)
		present += nr_present_on_cpus(vmalloc_to_page(addr + i * PAGE_SIZE), 1);

	return present;
}

static void flag_gives_absent_areas(struct kunit *test)
{
	const struct area_interface *interface = test->param_value;
	struct unmapped_test *ut = test->priv;
	unsigned int i, j, nr;
	size_t size;
	void *addr;

	for (i = 0; i < ARRAY_SIZE(area_sizes); i++) {
		size = area_sizes[i];
		for (j = 0; j < 2; j++) {
			addr = interface->alloc(size, GFP_KERNEL | __GFP_UNMAPPED);
			KUNIT_ASSERT_NOT_NULL(test, addr);
			KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, vfree_action,
									addr), 0);
			/* With huge pages it is more than was asked for */
			nr = get_vm_area_size(find_vm_area(addr)) / PAGE_SIZE;
			KUNIT_EXPECT_GE(test, nr * PAGE_SIZE, size);
			KUNIT_EXPECT_EQ(test, nr_used(ut), nr);
			KUNIT_EXPECT_EQ(test, nr_present_in_area(addr, nr), 0);
			KUNIT_EXPECT_NULL(test, memchr_inv(addr, 0, size));
			memset(addr, 0x5a, size);
			kunit_release_action(test, vfree_action, addr);
			flush_deferred(ut);
			KUNIT_EXPECT_EQ(test, nr_used(ut), 0);
		}
	}
}

static void flag_is_closed_to_areas(struct kunit *test)
{
	const struct area_interface *interface = test->param_value;
	void *addr;

	stub_get_pages(test, fail_get_pages);
	addr = interface->alloc(PMD_SIZE, GFP_KERNEL | __GFP_NOWARN | __GFP_UNMAPPED);
	KUNIT_EXPECT_NULL(test, addr);
	vfree(addr);
}

/* What a first try with huge pages took in vain is there for the second one */
static void flag_gives_areas_without_blocks(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct page *page;
	void *addr;

	/* A whole block is cached, and nearly all of another one */
	page = take(ut, GFP_KERNEL, UNMAPPED_MAX_ORDER);
	take(ut, GFP_KERNEL, 0);
	give(ut, page);
	stub_get_pages(test, get_dirty_small_pages);
	kunit_activate_static_stub(test, unmapped_set_valid, record_set_valid);
	addr = vmalloc_huge(PMD_SIZE + PAGE_SIZE, GFP_KERNEL | __GFP_UNMAPPED);
	KUNIT_EXPECT_NOT_NULL(test, addr);
	/* Else blocks are not freed by way of pcp lists, so a worker wipes them */
	if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		KUNIT_EXPECT_EQ(test, ut->nr_set_valid, 0);
	vfree(addr);
}

static void probe_address_on_this_cpu(void *info)
{
	struct probe *probe = info;
	u8 byte;

	atomic_add(!copy_from_kernel_nofault(&byte, probe->addr, sizeof(byte)),
		   &probe->present);
}

static unsigned int nr_cpus_that_read(void *addr)
{
	struct probe probe = { .addr = addr };

	on_each_cpu(probe_address_on_this_cpu, &probe, 1);

	return atomic_read(&probe.present);
}

/* No CPU reads pages by way of an area that they were freed from */
static void vfree_leaves_no_translation(struct kunit *test)
{
	void *addr = __vmalloc(PAGE_SIZE, GFP_KERNEL | __GFP_UNMAPPED);

	KUNIT_ASSERT_NOT_NULL(test, addr);
	KUNIT_EXPECT_EQ(test, nr_cpus_that_read(addr), num_online_cpus());
	vfree(addr);
	KUNIT_EXPECT_EQ(test, nr_cpus_that_read(addr), 0);
}

/* The same for an area that others made of absent pages */
static void vfree_of_pages_leaves_no_translation(struct kunit *test)
{
	struct page **pages = kmalloc_array(4, sizeof(*pages), GFP_KERNEL | __GFP_ZERO);
	void *addr;

	KUNIT_ASSERT_NOT_NULL(test, pages);
	alloc_pages_bulk(GFP_KERNEL | __GFP_UNMAPPED, 4, pages);
	KUNIT_ASSERT_NOT_NULL(test, pages[3]);
	addr = vmap(pages, 4, VM_MAP_PUT_PAGES, PAGE_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, addr);
	KUNIT_EXPECT_EQ(test, nr_cpus_that_read(addr), num_online_cpus());
	vfree(addr);
	KUNIT_EXPECT_EQ(test, nr_cpus_that_read(addr), 0);
}

#ifdef CONFIG_PROC_KCORE
/* As /proc/kcore does it */
static void vread_reads_absent_areas(struct kunit *test)
{
	size_t size = 5 * PAGE_SIZE, off = 123, len = 3 * PAGE_SIZE;
	struct kvec vec = { .iov_len = len };
	struct iov_iter iter;
	u8 *addr;

	vec.iov_base = kunit_kzalloc(test, len, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, vec.iov_base);
	addr = __vmalloc(size, GFP_KERNEL | __GFP_UNMAPPED);
	KUNIT_ASSERT_NOT_NULL(test, addr);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, vfree_action, addr), 0);
	get_random_bytes(addr, size);

	iov_iter_kvec(&iter, ITER_DEST, &vec, 1, len);
	KUNIT_EXPECT_EQ(test, vread_iter(&iter, addr + off, len), len);
	KUNIT_EXPECT_MEMEQ(test, vec.iov_base, addr + off, len);
}
#else
static void vread_reads_absent_areas(struct kunit *test)
{
	kunit_skip(test, "CONFIG_PROC_KCORE is not set");
}
#endif

/* VM_FLUSH_RESET_PERMS: the direct map of ordinary pages */

static void *take_reset_area(struct kunit *test, unsigned int nr)
{
	void *addr = vmalloc(nr * PAGE_SIZE);

	KUNIT_ASSERT_NOT_NULL(test, addr);
	set_vm_flush_reset_perms(addr);

	return addr;
}

static void reset_leaves_alone_what_is_default(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct direct_map map = read_direct_map(ut);
	unsigned int i;

	skip_unless_large_map(test);
	for (i = 0; i < 16; i++)
		vfree(take_reset_area(test, 1 + i));
	expect_same_map(ut, &map);
}

#define NR_RESET	8

static void reset_of_what_was_changed(struct kunit *test)
{
	struct mapping before[NR_RESET], now;
	void *addr = take_reset_area(test, NR_RESET);
	unsigned int i;

	for (i = 0; i < NR_RESET; i++)
		before[i] = mapping_of(vmalloc_to_page(addr + i * PAGE_SIZE));
	/* All but the first page */
	KUNIT_EXPECT_EQ(test, set_memory_ro((unsigned long)addr + PAGE_SIZE,
					    NR_RESET - 1), 0);
	for (i = 1; i < NR_RESET; i++) {
		now = mapping_of(before[i].page);
		KUNIT_EXPECT_FALSE(test, now.flags & _PAGE_RW);
	}

	vfree(addr);
	if (debug_pagealloc_enabled())
		kunit_skip(test, "debug_pagealloc changed it again");
	for (i = 0; i < NR_RESET; i++) {
		now = mapping_of(before[i].page);
		KUNIT_EXPECT_EQ(test, now.flags & ~_PAGE_PSE,
				before[i].flags & ~_PAGE_PSE);
		expect_free_pages_present(test, before[i].page, 1);
	}
}

/* What was changed as a whole is reset as a whole */
static void reset_of_a_huge_page(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct direct_map map = read_direct_map(ut);
	struct mapping now;
	struct page *page;
	void *addr;

	skip_unless_large_map(test);
	addr = vmalloc_huge(PMD_SIZE, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, addr);
	if (!is_vm_area_hugepages(addr)) {
		vfree(addr);
		kunit_skip(test, "no huge page is to be had");
	}

	page = vmalloc_to_page(addr);
	set_vm_flush_reset_perms(addr);
	KUNIT_EXPECT_EQ(test, set_memory_ro((unsigned long)addr, BLOCK_PAGES), 0);
	now = mapping_of(page);
	KUNIT_EXPECT_FALSE(test, now.flags & _PAGE_RW);
	vfree(addr);
	now = mapping_of(page);
	KUNIT_EXPECT_TRUE(test, now.flags & _PAGE_RW);
	KUNIT_EXPECT_GE(test, now.level, PG_LEVEL_2M);
	KUNIT_EXPECT_LE(test, read_direct_map(ut).size_4k, map.size_4k);
}

/* BPF */

#ifdef CONFIG_BPF
#ifdef CONFIG_BPF_JIT
static int set_jit(int value)
{
	return xchg(&bpf_jit_enable, value);
}
#else
static int set_jit(int value)
{
	return 0;
}
#endif

static void bpf_free_action(void *prog)
{
	__bpf_prog_free(prog);
}

/* Programs for the interpreter are made read-only, which splits nothing */
static void bpf_splits_nothing(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	struct direct_map map = read_direct_map(ut);
	struct bpf_prog *prog, *grown = NULL;
	int jit;

	skip_unless_large_map(test);
	jit = set_jit(0);
	prog = bpf_prog_alloc(PAGE_SIZE, 0);
	if (prog) {
		KUNIT_EXPECT_EQ(test, nr_present_in_area(prog, 1), 0);
		grown = bpf_prog_realloc(prog, 3 * PAGE_SIZE, 0);
	}
	set_jit(jit);
	KUNIT_ASSERT_NOT_NULL(test, grown);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, bpf_free_action, grown), 0);
	KUNIT_EXPECT_EQ(test, nr_present_in_area(grown, 3), 0);
	KUNIT_EXPECT_EQ(test, bpf_prog_lock_ro(grown), 0);
	KUNIT_EXPECT_EQ(test, nr_present_in_area(grown, 3), 0);

	kunit_release_action(test, bpf_free_action, grown);
	unmapped_alloc_drain(ut->nid);
	expect_same_map(ut, &map);
}

#if defined(CONFIG_BPF_JIT) && defined(CONFIG_NET)
static long nr_used_on_nodes(void)
{
	long nr = 0;
	int nid;

	for_each_node_state(nid, N_MEMORY)
		nr += node_stat(nid, NR_DIRECT_UNMAPPED_USED);

	return nr;
}

/* A program and the dispatcher that calls it are text, until they are gone */
static void bpf_keeps_no_text(struct kunit *test)
{
	struct sock_filter insns[] = { BPF_STMT(BPF_RET | BPF_K, 0) };
	struct sock_fprog_kern fprog = { .len = 1, .filter = insns };
	long before = nr_used_on_nodes(), used;
	struct bpf_prog *prog;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		KUNIT_ASSERT_EQ(test, bpf_prog_create(&prog, &fprog), 0);
		/* bpf_prog_create() leaves that to its callers */
		atomic64_set(&prog->aux->refcnt, 1);
		bpf_prog_change_xdp(NULL, prog);
		KUNIT_EXPECT_NE(test, nr_used_on_nodes(), 0);
		bpf_prog_change_xdp(prog, NULL);
		bpf_prog_destroy(prog);
	}

	KUNIT_EXPECT_EQ(test, 0, read_poll_timeout(nr_used_on_nodes, used, used <= before,
						   20 * USEC_PER_MSEC, 60 * USEC_PER_SEC,
						   false));
}
#else
static void bpf_keeps_no_text(struct kunit *test)
{
	kunit_skip(test, "CONFIG_BPF_JIT or CONFIG_NET is not set");
}
#endif
#else
static void bpf_splits_nothing(struct kunit *test)
{
	kunit_skip(test, "CONFIG_BPF is not set");
}

static void bpf_keeps_no_text(struct kunit *test)
{
	kunit_skip(test, "CONFIG_BPF is not set");
}
#endif

/* execmem */

#ifdef CONFIG_EXECMEM
/* Others free pages when they get to it */
static int wait_for_unused(struct unmapped_test *ut)
{
	long used;

	return read_poll_timeout(nr_used, used, !used, 20 * USEC_PER_MSEC,
				 60 * USEC_PER_SEC, false, ut);
}

static const struct execmem_use {
	const char		*desc;
	enum execmem_type	type;
	bool			absent;
} execmem_uses[] = {
	{ "EXECMEM_MODULE_TEXT", EXECMEM_MODULE_TEXT, true },
	{ "EXECMEM_KPROBES", EXECMEM_KPROBES, true },
	{ "EXECMEM_FTRACE", EXECMEM_FTRACE, true },
	{ "EXECMEM_BPF", EXECMEM_BPF, true },
	{ "EXECMEM_MODULE_RODATA", EXECMEM_MODULE_RODATA, true },
	{ "EXECMEM_MODULE_DATA", EXECMEM_MODULE_DATA, false },
};

static void execmem_free_action(void *addr)
{
	execmem_free(addr);
}

/* Nothing that is done to the area changes the direct map */
static void execmem_splits_nothing(struct kunit *test)
{
	const struct execmem_use *use = test->param_value;
	struct unmapped_test *ut = test->priv;
	struct direct_map map = read_direct_map(ut);
	unsigned int i, present, nr = 5;
	unsigned long addr;
	void *p;

	skip_unless_large_map(test);
	p = execmem_alloc_rw(use->type, nr * PAGE_SIZE);
	KUNIT_ASSERT_NOT_NULL(test, p);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, execmem_free_action, p), 0);
	present = nr_present_in_area(p, nr);
	KUNIT_EXPECT_EQ(test, present, use->absent ? 0 : nr * num_online_cpus());

	memset(p, 0xcc, nr * PAGE_SIZE);
	addr = (unsigned long)p;
	if (use->absent) {
		for (i = 0; i < 3; i++) {
			KUNIT_EXPECT_EQ(test, set_memory_ro(addr, nr), 0);
			KUNIT_EXPECT_EQ(test, set_memory_rw(addr + PAGE_SIZE, 1), 0);
		}
		KUNIT_EXPECT_EQ(test, set_memory_rox(addr, nr), 0);
	}
	KUNIT_EXPECT_LE(test, read_direct_map(ut).size_4k, map.size_4k);
	KUNIT_EXPECT_EQ(test, nr_present_in_area(p, nr), present);

	kunit_release_action(test, execmem_free_action, p);
	/* Freed by a worker */
	KUNIT_EXPECT_EQ(test, wait_for_unused(ut), 0);
	unmapped_alloc_drain(ut->nid);
	expect_same_map(ut, &map);
}

/* With no block to be had, text takes what is cached and splits nothing */
static void execmem_without_blocks(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	void *p;

	take(ut, GFP_KERNEL, 0);
	stub_get_pages(test, get_dirty_small_pages);
	kunit_activate_static_stub(test, unmapped_set_valid, record_set_valid);
	p = execmem_alloc_rw(EXECMEM_MODULE_TEXT, 300 * PAGE_SIZE);
	KUNIT_ASSERT_NOT_NULL(test, p);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, execmem_free_action, p), 0);
	KUNIT_EXPECT_EQ(test, nr_present_in_area(p, 300), 0);
	KUNIT_EXPECT_EQ(test, ut->nr_set_valid, 0);
	KUNIT_EXPECT_EQ(test, nr_used(ut), 301);

	kunit_release_action(test, execmem_free_action, p);
	give_all(ut);
	KUNIT_EXPECT_EQ(test, wait_for_unused(ut), 0);
}
#else
static const struct execmem_use {
	const char	*desc;
} execmem_uses[] = {
	{ "none" },
};

static void execmem_splits_nothing(struct kunit *test)
{
	kunit_skip(test, "CONFIG_EXECMEM is not set");
}

static void execmem_without_blocks(struct kunit *test)
{
	kunit_skip(test, "CONFIG_EXECMEM is not set");
}
#endif

KUNIT_ARRAY_PARAM_DESC(execmem_use, execmem_uses, desc);

/* Random operations, compared with a model */

#define NR_OPS		100000
#define NR_CHUNKS	128

/**
 * struct chunk - what the model knows of a chunk
 * @page: first page, NULL if there is none
 * @order: its order
 * @folio: it is a folio
 * @salt: what it was stamped with
 */
struct chunk {
	struct page	*page;
	unsigned int	order;
	bool		folio;
	u64		salt;
};

static u32 rnd(struct unmapped_test *ut)
{
	return prandom_u32_state(&ut->rnd);
}

/* Half of all are of order 0, a quarter of order 1 and so on */
static unsigned int rnd_order(struct unmapped_test *ut)
{
	return __ffs(rnd(ut) | BIT(UNMAPPED_MAX_ORDER));
}

static void model_alloc(struct unmapped_test *ut, struct chunk *c)
{
	unsigned int order = rnd_order(ut), nr = 1U << order;
	bool folio = rnd(ut) & 1;
	gfp_t gfp = rnd(ut) % 8 ? GFP_KERNEL : GFP_NOWAIT;
	struct page *page;

	page = unmapped_pages_alloc(gfp | (folio ? __GFP_COMP : 0), order, ut->nid);
	KUNIT_ASSERT_TRUE(ut->test, page || gfp == GFP_NOWAIT);
	if (!page)
		return;

	hold(ut, page, order);
	KUNIT_ASSERT_FALSE(ut->test, page_present(page + rnd(ut) % nr));
	KUNIT_ASSERT_TRUE(ut->test, is_zero(page, nr));
	*c = (struct chunk){ page, order, folio, rnd(ut) };
	stamp(page, nr, c->salt);
}

static void model_free(struct unmapped_test *ut, struct chunk *c)
{
	const struct free_path *path;

	KUNIT_ASSERT_TRUE(ut->test, is_stamped(c->page, 1U << c->order, c->salt));
	do {
		path = &free_paths[rnd(ut) % ARRAY_SIZE(free_paths)];
	} while (!path->gfp != !c->folio ||
		 (path->smp && num_online_cpus() == 1) ||
		 (path->hardirq && IS_ENABLED(CONFIG_PREEMPT_RT)));

	unhold(ut, c->page);
	path->free(c->page, c->order);
	c->page = NULL;
}

static void model_write(struct unmapped_test *ut, struct chunk *c)
{
	unsigned int nr = 1U << c->order;

	KUNIT_ASSERT_TRUE(ut->test, is_stamped(c->page, nr, c->salt));
	c->salt = rnd(ut);
	stamp(c->page, nr, c->salt);
	KUNIT_ASSERT_FALSE(ut->test, page_present(c->page + rnd(ut) % nr));
}

static void model_vmap(struct unmapped_test *ut, struct chunk *c)
{
	unsigned int i, nr = 1U << c->order;
	void *addr = vmap_chunk(ut, c->page, nr);
	u64 salt = rnd(ut);

	for (i = 0; i < nr; i++) {
		KUNIT_ASSERT_TRUE(ut->test, all_equal(addr + i * PAGE_SIZE,
						      page_stamp(c->page + i, c->salt)));
		memset64(addr + i * PAGE_SIZE, page_stamp(c->page + i, salt),
			 PAGE_SIZE / sizeof(u64));
	}
	c->salt = salt;
	kunit_release_action(ut->test, vunmap_action, addr);
}

static void model_check(struct unmapped_test *ut, const struct chunk *chunks)
{
	unsigned int i;
	long used = 0;

	flush_deferred(ut);
	for (i = 0; i < NR_CHUNKS; i++)
		if (chunks[i].page)
			used += 1L << chunks[i].order;
	KUNIT_ASSERT_EQ(ut->test, nr_used(ut), used);
	KUNIT_ASSERT_EQ(ut->test, unmapped_alloc_check(ut->nid), 0);
}

static void model_step(struct unmapped_test *ut, struct chunk *chunks,
		       unsigned int i)
{
	struct chunk *c = &chunks[rnd(ut) % NR_CHUNKS];
	unsigned int op = rnd(ut) % 16;

	if (i % 500 == 0)
		model_check(ut, chunks);
	if (i % 1000 == 0)
		unmapped_alloc_drain(ut->nid);
	if (i % 20000 == 0)
		drop_slab();

	if (!c->page)
		model_alloc(ut, c);
	else if (op < 14)
		model_free(ut, c);
	else if (op == 14)
		model_write(ut, c);
	else
		model_vmap(ut, c);
}

static void random_operations(struct kunit *test)
{
	struct unmapped_test *ut = test->priv;
	u32 s = seed ?: get_random_u32();
	struct chunk *chunks;
	unsigned int i;

	chunks = kunit_kcalloc(test, NR_CHUNKS, sizeof(*chunks), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, chunks);
	kunit_info(test, "unmapped_alloc_kunit.seed=%u", s);
	prandom_seed_state(&ut->rnd, s);

	for (i = 0; i < NR_OPS; i++)
		model_step(ut, chunks, i);

	for (i = 0; i < NR_CHUNKS; i++)
		if (chunks[i].page)
			model_free(ut, &chunks[i]);
	flush_deferred(ut);
	KUNIT_EXPECT_EQ(test, nr_used(ut), 0);
	unmapped_alloc_drain(ut->nid);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), 0);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);
}

/* Tasks on all CPUs */

#define NR_TASK_OPS	4000
#define NR_TASK_CHUNKS	8

/**
 * struct unmapped_user - a task that uses the cache
 * @done: it has ended
 * @nid: memory node to allocate from
 * @rnd: random numbers
 * @nr_failed: allocations that failed
 * @nr_wrong: chunks that were present, not zero, or changed by others
 */
struct unmapped_user {
	struct completion	done;
	int			nid;
	struct rnd_state	rnd;
	unsigned int		nr_failed;
	unsigned int		nr_wrong;
};

static void user_take(struct unmapped_user *u, struct chunk *c)
{
	u32 r = prandom_u32_state(&u->rnd);
	unsigned int nr;

	c->order = __ffs(r | BIT(UNMAPPED_MAX_ORDER));
	c->salt = r;
	nr = 1U << c->order;
	c->page = unmapped_pages_alloc(GFP_KERNEL, c->order, u->nid);
	if (!c->page) {
		u->nr_failed++;
		return;
	}
	u->nr_wrong += nr_present(c->page, nr) || !is_zero(c->page, nr);
	stamp(c->page, nr, c->salt);
}

static void user_give(struct unmapped_user *u, struct chunk *c)
{
	u->nr_wrong += !is_stamped(c->page, 1U << c->order, c->salt);
	switch (c->salt >> 30) {
	case 0:
		free_pages_nolock(c->page, c->order);
		break;
	case 1:
		free_locked(c->page, c->order);
		break;
	case 2:
		free_by_large_folio_batch(c->page, c->order);
		break;
	default:
		__free_pages(c->page, c->order);
	}
	c->page = NULL;
}

static int user_fn(void *data)
{
	struct chunk chunks[NR_TASK_CHUNKS] = {};
	struct unmapped_user *u = data;
	struct chunk *c;
	unsigned int i;

	for (i = 0; i < NR_TASK_OPS; i++) {
		c = &chunks[prandom_u32_state(&u->rnd) % NR_TASK_CHUNKS];
		if (c->page)
			user_give(u, c);
		else
			user_take(u, c);
		cond_resched();
	}
	for (i = 0; i < NR_TASK_CHUNKS; i++)
		if (chunks[i].page)
			user_give(u, &chunks[i]);
	complete(&u->done);

	return 0;
}

static bool start_task(struct unmapped_test *ut, int (*fn)(void *data),
		       struct unmapped_user *u, int cpu)
{
	struct task_struct *task;

	init_completion(&u->done);
	u->nid = ut->nid;
	prandom_seed_state(&u->rnd, rnd(ut));
	task = kthread_run_on_cpu(fn, u, cpu, "unmapped_kunit/%u");
	if (IS_ERR(task))
		complete(&u->done);

	return !IS_ERR(task);
}

static void tasks_on_all_cpus(struct kunit *test)
{
	unsigned int i, nr = 2 * num_online_cpus();
	struct unmapped_test *ut = test->priv;
	unsigned int rounds = 0;
	struct unmapped_user *users;
	int cpu;

	users = kunit_kcalloc(test, nr, sizeof(*users), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, users);
	prandom_seed_state(&ut->rnd, seed ?: get_random_u32());

	i = 0;
	for_each_online_cpu(cpu) {
		KUNIT_EXPECT_TRUE(test, start_task(ut, user_fn, &users[i++], cpu));
		KUNIT_EXPECT_TRUE(test, start_task(ut, user_fn, &users[i++], cpu));
	}
	for (i = 0; i < nr; i++) {
		while (!wait_for_completion_timeout(&users[i].done, 1)) {
			unmapped_alloc_drain(ut->nid);
			KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);
			if (++rounds % 16 == 0)
				drop_slab();
		}
		KUNIT_EXPECT_EQ(test, users[i].nr_failed, 0);
		KUNIT_EXPECT_EQ(test, users[i].nr_wrong, 0);
	}
	flush_deferred(ut);
	KUNIT_EXPECT_EQ(test, nr_used(ut), 0);
}

/* All at once: users, and those who change attributes */

static int changer_fn(void *data)
{
	struct unmapped_user *u = data;
	unsigned int i;

	for (i = 0; i < NR_TASK_OPS / 4; i++) {
		u32 r = prandom_u32_state(&u->rnd);
		const struct attr_change *attr = &attr_changes[r % ARRAY_SIZE(attr_changes)];
		unsigned int order = (r >> 8) % 4;
		struct page *page = alloc_pages_node(u->nid, GFP_KERNEL, order);
		unsigned long addr;

		if (!page) {
			u->nr_failed++;
			continue;
		}
		addr = (unsigned long)page_address(page);
		u->nr_wrong += nr_present(page, 1U << order) != 1U << order;
		memset((void *)addr, 0xa5, PAGE_SIZE << order);
		u->nr_failed += !!attr->change(addr, 1U << order);
		cond_resched();
		u->nr_failed += !!attr->undo(addr, 1U << order);
		u->nr_wrong += !!memchr_inv((void *)addr, 0xa5, PAGE_SIZE << order);
		__free_pages(page, order);
	}
	complete(&u->done);

	return 0;
}

static void users_and_changers(struct kunit *test)
{
	unsigned int i, nr = 2 * num_online_cpus();
	struct unmapped_test *ut = test->priv;
	struct unmapped_user *users;
	unsigned int rounds = 0;
	struct direct_map map;
	int cpu;

	skip_unless_large_map(test);
	users = kunit_kcalloc(test, nr, sizeof(*users), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, users);
	prandom_seed_state(&ut->rnd, seed ?: get_random_u32());
	map = read_direct_map(ut);
	unmapped_heal_delay = 1;

	i = 0;
	for_each_online_cpu(cpu) {
		KUNIT_EXPECT_TRUE(test, start_task(ut, user_fn, &users[i++], cpu));
		KUNIT_EXPECT_TRUE(test, start_task(ut, changer_fn, &users[i++], cpu));
	}
	for (i = 0; i < nr; i++) {
		while (!wait_for_completion_timeout(&users[i].done, 1)) {
			KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);
			if (++rounds % 8 == 0)
				unmapped_alloc_drain(ut->nid);
			if (rounds % 16 == 0)
				drop_slab();
		}
		KUNIT_EXPECT_EQ(test, users[i].nr_failed, 0);
		KUNIT_EXPECT_EQ(test, users[i].nr_wrong, 0);
	}
	flush_deferred(ut);
	KUNIT_EXPECT_EQ(test, nr_used(ut), 0);
	unmapped_alloc_drain(ut->nid);
	expect_same_map(ut, &map);
}

/* All tests */

static void unmapped_test_end(void *data)
{
	struct unmapped_test *ut = data;
	struct kunit *test = ut->test;
	int nid;

	give_all(ut);
	xa_destroy(&ut->held);
	for_each_node_state(nid, N_MEMORY)
		unmapped_alloc_drain(nid);
	unmapped_idle_delay = HZ;
	unmapped_heal_delay = HZ;
	unmapped_retry_delay = HZ / 10;

	KUNIT_EXPECT_EQ(test, nr_used(ut), 0);
	KUNIT_EXPECT_EQ(test, nr_cached(ut), 0);
	KUNIT_EXPECT_EQ(test, unmapped_alloc_check(ut->nid), 0);
	KUNIT_EXPECT_EQ(test, node_stat(ut->nid, NR_KERNEL_MISC_RECLAIMABLE),
			ut->reclaimable);
}

static int unmapped_test_init(struct kunit *test)
{
	struct unmapped_test *ut;

	if (!unmapped_alloc_enabled())
		kunit_skip(test, "unmapped_alloc is off");

	ut = kunit_kzalloc(test, sizeof(*ut), GFP_KERNEL);
	if (!ut)
		return -ENOMEM;

	ut->test = test;
	ut->nid = numa_mem_id();
	/* What asks for no node gets this one all the time */
	set_cpus_allowed_ptr(current, cpumask_of_node(numa_node_id()));
	ut->other = NUMA_NO_NODE;
	xa_init(&ut->held);
	test->priv = ut;
	/* However slow the machine, the worker returns nothing meanwhile */
	unmapped_idle_delay = 3600 * HZ;
	unmapped_heal_delay = 3600 * HZ;
	unmapped_retry_delay = 0;
	unmapped_alloc_drain(ut->nid);
	unmapped_alloc_reset();
	ut->used = node_stat(ut->nid, NR_DIRECT_UNMAPPED_USED);
	ut->reclaimable = node_stat(ut->nid, NR_KERNEL_MISC_RECLAIMABLE);

	return kunit_add_action_or_reset(test, unmapped_test_end, ut);
}

static struct kunit_case unmapped_test_cases[] = {
	KUNIT_CASE_PARAM(r1_absent_on_every_cpu, order_gen_params),
	KUNIT_CASE(r1_absent_from_the_first_moment),
	KUNIT_CASE(r1_absent_after_access),
	KUNIT_CASE(r2_zero_after_dirty_refill),
	KUNIT_CASE_PARAM(r2_zero_after_use, order_gen_params),
	KUNIT_CASE(r2_zero_when_returned),
	KUNIT_CASE(r3_closed_to_bad_requests),
	KUNIT_CASE_PARAM(r3_closed_to_atomic_misses, atomic_gfp_gen_params),
	KUNIT_CASE(r3_closed_to_interrupts),
	KUNIT_CASE_PARAM(r3_closed_when_refill_fails, failure_gen_params),
	KUNIT_CASE(r3_closed_to_reclaimers),
	KUNIT_CASE_PARAM(r4_whole_after_drain, order_gen_params),
	KUNIT_CASE(r4_whole_after_fallback),
	KUNIT_CASE(r4_whole_after_single_pages),
	KUNIT_CASE(r4_whole_gigabytes),
	KUNIT_CASE_PARAM(r5_quiet_hits_and_frees, order_gen_params),
	KUNIT_CASE_PARAM(r6_free_of_charge, order_gen_params),
	KUNIT_CASE(r6_free_of_charge_afterwards),
	KUNIT_CASE_PARAM(r7_no_split_of_whole_blocks, order_gen_params),
	KUNIT_CASE(r7_no_split_by_alias),
	KUNIT_CASE(alias_of_fallback_is_in_step),
	KUNIT_CASE_PARAM(order_is_as_from_alloc_pages, order_gen_params),
	KUNIT_CASE_PARAM(order_makes_a_folio, order_gen_params),
	KUNIT_CASE_PARAM(order_fills_a_block, order_gen_params),
	KUNIT_CASE(this_node_is_honoured),
	KUNIT_CASE(other_nodes_help_out),
	KUNIT_CASE(refills_are_rationed),
	KUNIT_CASE(refills_are_rationed_by_source),
	KUNIT_CASE(no_node_is_this_one),
	KUNIT_CASE_PARAM(free_comes_back, free_path_gen_params),
	KUNIT_CASE(free_is_deferred),
	KUNIT_CASE(free_mixed_folio_batch),
	KUNIT_CASE_PARAM(free_mixed_run, mix_gen_params),
	KUNIT_CASE_PARAM(free_run_of_whole_block, half_gen_params),
	KUNIT_CASE(free_ordinary_neighbours),
	KUNIT_CASE_PARAM(fallback_is_absent_and_zero, small_order_gen_params),
	KUNIT_CASE(fallback_of_first_block),
	KUNIT_CASE(fallback_if_blocks_stay_present),
	KUNIT_CASE_SLOW(idle_blocks_are_returned),
	KUNIT_CASE_SLOW(fallback_pages_are_returned),
	KUNIT_CASE(shrinker_returns_idle_blocks),
	KUNIT_CASE(shrinker_returns_split_blocks),
	KUNIT_CASE(idle_blocks_are_available),
	KUNIT_CASE(fullest_block_is_used_first),
	KUNIT_CASE_PARAM(heal_after_others, attr_change_gen_params),
	KUNIT_CASE_SLOW(heal_by_itself),
	KUNIT_CASE(heal_is_limited),
	KUNIT_CASE(heal_takes_its_share),
	KUNIT_CASE(heal_not_during_cpu_hotplug),
	KUNIT_CASE(heal_gigabytes),
	KUNIT_CASE(collect_what_is_freed),
	KUNIT_CASE(collect_with_one_flush),
	KUNIT_CASE(collect_from_other_paths),
	KUNIT_CASE(collect_nothing_without_users),
	KUNIT_CASE(collect_no_more_than_a_block),
	KUNIT_CASE_SLOW(collect_until_nobody_needs_it),
	KUNIT_CASE(collect_beside_a_fallback),
	KUNIT_CASE(collect_what_is_free),
	KUNIT_CASE(collect_what_is_free_of_its_type),
	KUNIT_CASE(collect_nothing_of_isolated_block),
	KUNIT_CASE(refill_by_migration),
	KUNIT_CASE(migration_waits_for_no_cpu),
	KUNIT_CASE(migration_gives_up),
	KUNIT_CASE(migration_keeps_to_the_node),
	KUNIT_CASE(blocks_are_near_each_other),
	KUNIT_CASE(blocks_of_larger_chunks),
	KUNIT_CASE(poisoned_pages_are_kept_out),
	KUNIT_CASE(migration_copies_no_orphans),
	KUNIT_CASE(fast_gup_takes_no_orphans),
	KUNIT_CASE_PARAM(counters_add_up, order_gen_params),
	KUNIT_CASE(account_charges_what_is_used),
	KUNIT_CASE(account_keeps_limits),
	KUNIT_CASE_PARAM(flag_gives_absent_pages, page_interface_gen_params),
	KUNIT_CASE_PARAM(flag_is_closed, page_interface_gen_params),
	KUNIT_CASE(flag_is_refused),
	KUNIT_CASE(flag_is_refused_loudly),
	KUNIT_CASE(flag_is_refused_by_sheaves),
	KUNIT_CASE(flag_is_refused_by_dma),
	KUNIT_CASE_PARAM(flag_with_account, page_interface_gen_params),
	KUNIT_CASE(bulk_fills_holes),
	KUNIT_CASE(bulk_without_reclaim),
	KUNIT_CASE_PARAM(flag_with_modifier, modifier_gen_params),
	KUNIT_CASE_PARAM(flag_in_scope, page_interface_gen_params),
	KUNIT_CASE(flag_in_scope_of_fallback),
	KUNIT_CASE(flag_uses_no_reserves),
	KUNIT_CASE(flag_with_nofail),
	KUNIT_CASE(flag_with_nofail_in_atomic),
	KUNIT_CASE(flag_with_noretry),
	KUNIT_CASE(flag_makes_compound_pages),
	KUNIT_CASE_PARAM(flag_with_policy, policy_gen_params),
	KUNIT_CASE(flag_with_home_node),
	KUNIT_CASE(flag_with_strict_policy),
	KUNIT_CASE_PARAM(flag_with_cpuset, page_interface_gen_params),
	KUNIT_CASE_PARAM(flag_gives_absent_areas, area_interface_gen_params),
	KUNIT_CASE_PARAM(flag_is_closed_to_areas, area_interface_gen_params),
	KUNIT_CASE(flag_gives_areas_without_blocks),
	KUNIT_CASE(vfree_leaves_no_translation),
	KUNIT_CASE(vfree_of_pages_leaves_no_translation),
	KUNIT_CASE(vread_reads_absent_areas),
	KUNIT_CASE(reset_leaves_alone_what_is_default),
	KUNIT_CASE(reset_of_what_was_changed),
	KUNIT_CASE(reset_of_a_huge_page),
	KUNIT_CASE(bpf_splits_nothing),
	KUNIT_CASE(bpf_keeps_no_text),
	KUNIT_CASE_PARAM(execmem_splits_nothing, execmem_use_gen_params),
	KUNIT_CASE(execmem_without_blocks),
	KUNIT_CASE_SLOW(random_operations),
	KUNIT_CASE_SLOW(tasks_on_all_cpus),
	KUNIT_CASE_SLOW(users_and_changers),
	/* The last one, it leaves a block that is mapped by PTEs */
	KUNIT_CASE(heal_not_where_4k_is_wanted),
	{}
};

static struct kunit_suite unmapped_test_suite = {
	.name = "unmapped_alloc",
	.init = unmapped_test_init,
	.test_cases = unmapped_test_cases,
};

/* Only what must hold where there is no cache: no page at all */
static void r3_closed_when_off(struct kunit *test)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_NOWARN | __GFP_UNMAPPED;
	unsigned int i, order;
	struct page *page;

	if (unmapped_alloc_enabled())
		kunit_skip(test, "unmapped_alloc is on");

	for (order = 0; order <= MAX_PAGE_ORDER; order++)
		KUNIT_EXPECT_NULL(test, unmapped_pages_alloc(GFP_KERNEL, order,
							     NUMA_NO_NODE));
	KUNIT_EXPECT_EQ(test, unmapped_alloc_drain(numa_mem_id()), 0);
	for (i = 0; i < ARRAY_SIZE(page_interfaces); i++)
		KUNIT_EXPECT_NULL(test, page_interfaces[i].alloc(gfp, 0, numa_mem_id()));
	for (i = 0; i < ARRAY_SIZE(area_interfaces); i++)
		KUNIT_EXPECT_NULL(test, area_interfaces[i].alloc(PAGE_SIZE, gfp));

	page = alloc_page(GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, page);
	KUNIT_EXPECT_FALSE(test, is_unmapped_page(page));
	KUNIT_EXPECT_TRUE(test, page_present(page));
	__free_page(page);
}

/* Text is in the direct map then, whose attributes are the default again */
#ifdef CONFIG_EXECMEM
static bool is_writable(struct page *page)
{
	return mapping_of(page).flags & _PAGE_RW;
}

static void execmem_is_reset_when_off(struct kunit *test)
{
	struct page *page;
	bool writable;
	void *p;

	if (unmapped_alloc_enabled())
		kunit_skip(test, "unmapped_alloc is on");

	/* An area of its own, which is freed when nothing in it is in use */
	p = execmem_alloc_rw(EXECMEM_MODULE_TEXT, PMD_SIZE);
	KUNIT_ASSERT_NOT_NULL(test, p);
	page = vmalloc_to_page(p);
	KUNIT_EXPECT_TRUE(test, page_present(page));
	KUNIT_EXPECT_EQ(test, execmem_restore_rox(p, PMD_SIZE), 0);
	KUNIT_EXPECT_FALSE(test, is_writable(page));
	execmem_free(p);
	/* Freed by a worker */
	KUNIT_EXPECT_EQ(test, read_poll_timeout(is_writable, writable, writable,
						20 * USEC_PER_MSEC, 60 * USEC_PER_SEC,
						false, page), 0);
}
#else
static void execmem_is_reset_when_off(struct kunit *test)
{
	kunit_skip(test, "CONFIG_EXECMEM is not set");
}
#endif

static struct kunit_case unmapped_off_test_cases[] = {
	KUNIT_CASE(r3_closed_when_off),
	KUNIT_CASE(execmem_is_reset_when_off),
	{}
};

static struct kunit_suite unmapped_off_test_suite = {
	.name = "unmapped_alloc_off",
	.test_cases = unmapped_off_test_cases,
};

kunit_test_suites(&unmapped_test_suite, &unmapped_off_test_suite);

MODULE_DESCRIPTION("KUnit tests of the cache of pages absent from the direct map");
MODULE_LICENSE("GPL");
