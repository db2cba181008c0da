// SPDX-License-Identifier: GPL-2.0
/*
 * A cache of pages that are absent from the direct map
 *
 * It stands beside the buddy allocator. A "block" is one pageblock, mapped by
 * one PMD of the direct map. A "refill" takes a free block from the page
 * allocator, zeroes it, and makes it absent from the direct map by one PMD
 * write and one flush of all TLBs. The block is then handed out in chunks of
 * order 0 to UNMAPPED_MAX_ORDER, fullest blocks first, so that others become
 * wholly free. Pages come back through the ordinary functions, put_page(),
 * __free_pages(), vfree(): the page allocator's free paths find PB_unmapped set
 * for the pageblock. They are wiped and merged, and stay absent, so taking
 * them again costs neither a flush nor a change of page tables. A "return"
 * makes an idle block present and gives it back to the page allocator: a worker
 * does so a while after the last use, a shrinker when memory is short.
 *
 * Blocks that are mapped by PTEs are called split: somebody changed the
 * attributes of a part. While there are users of the cache it watches them, so
 * that PB_unmapped is set for them too. Pages freed there are collected, and
 * handed out before a new block is taken. If no block is to be had, free pages
 * of split blocks are looked for, and if there are none, single chunks are
 * taken out of the direct map the expensive way ("fallback"), which splits one
 * more. Of such blocks the cache owns a part only.
 *
 * Every free page in the cache is zero and absent. What is collected is not,
 * and is not counted as free, until it is needed.
 *
 * A split block all of which has the same attributes again is collapsed, see
 * heal().
 *
 * Locking: unmapped_node.lock protects all of a node's blocks. It is taken in
 * any context but NMI. In it nests the lock of unmapped_blocks, in which nest
 * those of slab, should somebody else have removed the reserved entry, and those
 * of kfree_rcu().
 * CPA is called without it, and so is the page allocator otherwise. Lookups in
 * unmapped_blocks are under RCU. heal_mutex is for those who look for split
 * blocks; the memory hotplug lock nests in it, so the memory notifier does not
 * take it, nor does reclaim. The CPU hotplug lock is tried only.
 */
#define pr_fmt(fmt) "unmapped_alloc: " fmt

#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/bitmap.h>
#include <linux/cpuset.h>
#include <linux/delay.h>
#include <linux/fault-inject.h>
#include <linux/folio_batch.h>
#include <linux/init.h>
#include <linux/irq_work.h>
#include <linux/llist.h>
#include <linux/memcontrol.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/page-isolation.h>
#include <linux/percpu.h>
#include <linux/sched/mm.h>
#include <linux/set_memory.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/swap.h>
#include <linux/unmapped_alloc.h>
#include <linux/vmalloc.h>
#include <linux/vmstat.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include <asm/tlbflush.h>

#include "internal.h"
#include "page_alloc.h"

#define CREATE_TRACE_POINTS
#include <trace/events/unmapped_alloc.h>

#define BLOCK_PAGES	BIT_U32(UNMAPPED_MAX_ORDER)
#define NR_ORDERS	(UNMAPPED_MAX_ORDER + 1)

/*
 * Blocks with free pages are sorted by how full they are: split blocks first,
 * to be used before any other, then by fls(number of free pages).
 */
#define FILL_SPLIT	0
#define FILL_IDLE	(UNMAPPED_MAX_ORDER + 1)	/* all pages free */
#define NR_FILLS	(FILL_IDLE + 1)

/*
 * How long pages stay unused before they are returned, in jiffies. A process
 * that exits is often followed by another one of its kind.
 */
VISIBLE_IF_KUNIT unsigned long unmapped_idle_delay = HZ;

/*
 * How long it takes from a change of the direct map to an attempt to collapse
 * what is split, in jiffies. A range that is split again gets it twice as long
 * each time, up to 1 << HEAL_TRIES_MAX: more than an hour.
 */
VISIBLE_IF_KUNIT unsigned long unmapped_heal_delay = HZ;
#define HEAL_TRIES_BITS	4
#define HEAL_TRIES_MAX	12

/* How often locks of others are waited for in each 1 GiB, for 1 ms */
#define HEAL_LOCK_TRIES	10

/*
 * A look at the whole direct map takes a while where there are terabytes, and
 * attributes may be changed all day. So nobody looks again for this many times
 * as long as it took.
 */
#define HEAL_REST	9

/* How long there is demand after a miss, in unmapped_idle_delay */
#define DEMAND_DELAYS	10

/*
 * How long nobody asks for a block after there was none, in jiffies, but for
 * those whom nothing else would serve; ten times as long for a block to be
 * emptied. Both take milliseconds, in vain.
 */
VISIBLE_IF_KUNIT unsigned long unmapped_retry_delay = HZ / 10;

/* What is collected at most, in pages of a node: as many as a refill takes */
#define COLLECT_MAX	BLOCK_PAGES

/*
 * What is looked for among free pages at once, as they are made absent singly,
 * and in how many blocks
 */
#define COLLECT_FREE_MAX	64
#define COLLECT_SCAN		64

/* Blocks that are looked at for a block to be emptied, and that are tried */
#define CONTIG_SCAN	512
#define CONTIG_TRIES	3

#define PUD_PAGES	(PUD_SIZE >> PAGE_SHIFT)

/**
 * struct unmapped_block - the pages of one pageblock that are in the cache
 * @list: in unmapped_node.blocks, if there are free pages
 * @watch: in unmapped_node.watched, if the block is watched
 * @rcu: frees the block
 * @pfn: of the first page of the pageblock
 * @freed_at: jiffies when a page was freed last
 * @nid: the node; a pageblock that spans nodes serves the one that came first
 * @nr_owned: number of bits set in @owned
 * @nr_free: number of owned pages that are not handed out
 * @nr_split: what is counted of @nr_free in unmapped_node.nr_split
 * @nr_chunks: number of free chunks by order
 * @free_orders: bit set for orders that have free chunks
 * @fill: list that the block is on, first index
 * @top: list that the block is on, second index: the largest free order
 * @split: mapped by PTEs, owned in part or not at all
 * @owned: pages that were taken from the page allocator
 * @free: the mini buddy: a binary tree, in which the chunk of 1 << order pages
 *	at page offset has the bit (BLOCK_PAGES + offset) >> order. So the buddy
 *	of chunk i is i ^ 1, what they merge to is i / 2, and bit 1 is the block.
 */
struct unmapped_block {
	struct list_head	list;
	struct list_head	watch;
	struct rcu_head		rcu;
	unsigned long		pfn;
	unsigned long		freed_at;
	int			nid;
	u16			nr_owned;
	u16			nr_free;
	u16			nr_split;
	u16			nr_chunks[NR_ORDERS];
	u16			free_orders;
	u8			fill;
	u8			top;
	bool			split;
	DECLARE_BITMAP(owned, BLOCK_PAGES);
	DECLARE_BITMAP(free, 2 * BLOCK_PAGES);
};

/**
 * struct unmapped_node - the cache of one memory node
 * @nid: the node
 * @lock: protects all that follows up to @watched, and the node's blocks. What
 *	comes after is used without it; the pfns and times are hints, which may
 *	be stale
 * @blocks: blocks with free pages, by fill and largest free order
 * @orders: for each fill, the orders whose list is not empty
 * @nr_used: pages handed out
 * @nr_free: pages in the cache
 * @nr_idle: blocks that are wholly free
 * @nr_split: pages in the cache of split blocks
 * @freed: pages came back since the worker looked last
 * @watched: blocks in which freed pages are collected
 * @next_block: pfn of the block after the one that was taken last
 * @next_contig: pfn of the block from which pages are to be migrated next
 * @contig_after: when it is worth trying, in jiffies
 * @contig_busy: bit 0 is set while somebody does
 * @refill_after: when it is worth asking for a block again, in jiffies
 * @collect_after: when it is worth looking for free pages again, in jiffies
 * @deferred: chunks freed where they could not be wiped, order in page->private
 * @collected: chunks freed in watched blocks, order in page->private
 * @nr_collected: pages in @collected
 * @collecting: there is demand, and no shortage of memory
 * @missed_at: when a request could not be served from the cache, in jiffies
 * @return_work: returns idle blocks. Freezable, so that no block changes hands
 *	while the image of a hibernation is written.
 * @deferred_work: wipes @deferred
 * @deferred_irq_work: starts @deferred_work, from contexts that cannot
 */
struct unmapped_node {
	int			nid;
	spinlock_t		lock;		/* see above */
	struct list_head	blocks[NR_FILLS][NR_ORDERS];
	u16			orders[NR_FILLS];
	unsigned long		nr_used;
	unsigned long		nr_free;
	unsigned long		nr_idle;
	unsigned long		nr_split;
	bool			freed;

	struct list_head	watched;

	unsigned long		next_block;
	unsigned long		next_contig;
	unsigned long		contig_after;
	unsigned long		contig_busy;
	unsigned long		refill_after;
	unsigned long		collect_after;

	struct llist_head	deferred;
	struct llist_head	collected;
	atomic_long_t		nr_collected;
	bool			collecting;
	unsigned long		missed_at;
	struct delayed_work	return_work;
	struct work_struct	deferred_work;
	struct irq_work		deferred_irq_work;
};

/*
 * A hole in the vmalloc area, for access to absent pages. Its first page is for
 * unmapped_page_map(), the others are for wiping: what a batch of folios has is
 * cleared in one go. Interrupts are off meanwhile: 124 KiB take 4 us at 31 GB/s,
 * 12 us at 10 GB/s, which is less than the page allocator may spend in
 * free_pcppages_bulk().
 */
#define WIPE_BATCH	(UNMAPPED_WINDOW_PAGES - 1)

struct unmapped_window {
	void	*addr;
	pte_t	*ptes;
};

static bool unmapped_enabled __ro_after_init;
static struct unmapped_node *unmapped_nodes[MAX_NUMNODES] __ro_after_init;
static DEFINE_PER_CPU(struct unmapped_window, unmapped_window);

/* All blocks, by pfn / BLOCK_PAGES */
static DEFINE_XARRAY_FLAGS(unmapped_blocks, XA_FLAGS_LOCK_IRQ);

static DEFINE_MUTEX(heal_mutex);
static struct workqueue_struct *heal_wq __ro_after_init;
static void heal_work_fn(struct work_struct *work);
static DECLARE_DELAYED_WORK(heal_work, heal_work_fn);
static DECLARE_DELAYED_WORK(heal_retry_work, heal_work_fn);

static unsigned long block_key(unsigned long pfn)
{
	return pfn >> UNMAPPED_MAX_ORDER;
}

static struct unmapped_node *page_node(const struct page *page)
{
	return unmapped_nodes[page_to_nid(page)];
}

/* The mini buddy of one block. unmapped_node.lock is held. */

static void chunk_add(struct unmapped_block *b, unsigned int i,
		      unsigned int order)
{
	__set_bit(i, b->free);
	if (!b->nr_chunks[order]++)
		b->free_orders |= BIT(order);
}

static void chunk_del(struct unmapped_block *b, unsigned int i,
		      unsigned int order)
{
	__clear_bit(i, b->free);
	if (!--b->nr_chunks[order])
		b->free_orders &= ~BIT(order);
}

/* With neither CONFIG_DEBUG_VM nor the tests nobody asks */
static bool __maybe_unused chunk_is_free(const struct unmapped_block *b,
					 unsigned int i)
{
	for (; i; i >>= 1)
		if (test_bit(i, b->free))
			return true;

	return false;
}

/* @order is not above b->top. Returns the chunk's offset in pages. */
static unsigned int block_take(struct unmapped_block *b, unsigned int order)
{
	unsigned int o = order + __ffs(b->free_orders >> order);
	unsigned int first = BLOCK_PAGES >> o;
	unsigned int i;

	i = find_next_bit(b->free, 2 * first, first);
	chunk_del(b, i, o);
	while (o > order) {
		o--;
		i *= 2;
		chunk_add(b, i + 1, o);
	}
	b->nr_free -= 1U << order;

	return (i << order) - BLOCK_PAGES;
}

static void block_put(struct unmapped_block *b, unsigned int offset,
		      unsigned int order)
{
	unsigned int i = (BLOCK_PAGES + offset) >> order;

	VM_WARN_ON_ONCE(chunk_is_free(b, i));

	b->nr_free += 1U << order;
	while (order < UNMAPPED_MAX_ORDER && test_bit(i ^ 1, b->free)) {
		chunk_del(b, i ^ 1, order);
		i /= 2;
		order++;
	}
	chunk_add(b, i, order);
}

/* The blocks of one node. unmapped_node.lock is held. */

static bool block_is_idle(const struct unmapped_block *b)
{
	return b->fill == FILL_IDLE && !list_empty(&b->list);
}

static void node_account_idle(struct unmapped_node *un, int nr)
{
	un->nr_idle += nr;
	__mod_node_page_state(NODE_DATA(un->nid), NR_KERNEL_MISC_RECLAIMABLE,
			      nr * (int)BLOCK_PAGES);
}

static void node_account(struct unmapped_node *un, int free, int used)
{
	un->nr_free += free;
	un->nr_used += used;
	__mod_node_page_state(NODE_DATA(un->nid), NR_DIRECT_UNMAPPED_FREE, free);
	__mod_node_page_state(NODE_DATA(un->nid), NR_DIRECT_UNMAPPED_USED, used);
}

static void node_unlink(struct unmapped_node *un, struct unmapped_block *b)
{
	if (list_empty(&b->list))
		return;

	if (block_is_idle(b))
		node_account_idle(un, -1);

	list_del_init(&b->list);
	if (list_empty(&un->blocks[b->fill][b->top]))
		un->orders[b->fill] &= ~BIT(b->top);
}

/* Put a block on the list that fits its free pages */
static void node_relink(struct unmapped_node *un, struct unmapped_block *b)
{
	u8 fill = b->split ? FILL_SPLIT : fls(b->nr_free);
	u16 nr_split = b->split ? b->nr_free : 0;
	u8 top;

	un->nr_split += nr_split - b->nr_split;
	b->nr_split = nr_split;

	if (!b->nr_free) {
		node_unlink(un, b);
		return;
	}

	top = fls(b->free_orders) - 1;
	if (!list_empty(&b->list) && b->fill == fill && b->top == top)
		return;

	node_unlink(un, b);
	b->fill = fill;
	b->top = top;
	list_add(&b->list, &un->blocks[fill][top]);
	un->orders[fill] |= BIT(top);
	if (block_is_idle(b))
		node_account_idle(un, 1);
}

/* The fullest block that has a free chunk of @order, or NULL */
static struct unmapped_block *node_find(struct unmapped_node *un,
					unsigned int order)
{
	unsigned int fill;

	for (fill = 0; fill < NR_FILLS; fill++) {
		unsigned int orders = un->orders[fill] >> order;

		if (orders)
			return list_first_entry(&un->blocks[fill][order + __ffs(orders)],
						struct unmapped_block, list);
	}

	return NULL;
}

/* The block's first page that is in a zone: page 0 is in none */
static struct page *block_page(const struct unmapped_block *b)
{
	struct page *page = pfn_to_page(b->pfn);

	return pfn_to_page(max(b->pfn, page_zone(page)->zone_start_pfn));
}

/* Forget a block of which no page is owned, and which is not watched */
static void node_forget(struct unmapped_block *b)
{
	struct page *page = block_page(b);

	clear_pfnblock_bit(page, page_to_pfn(page), PB_unmapped);
	xa_lock(&unmapped_blocks);
	__xa_erase(&unmapped_blocks, block_key(b->pfn));
	xa_unlock(&unmapped_blocks);
	kfree_rcu(b, rcu);
}

static unsigned int node_reserve(const struct unmapped_node *un)
{
	return READ_ONCE(un->nr_used) ? 1 : 0;
}

static bool node_watches(struct unmapped_node *un)
{
	return READ_ONCE(un->collecting) || !list_empty_careful(&un->watched);
}

/* There are users, and not long ago one found the cache empty */
static bool node_in_demand(const struct unmapped_node *un)
{
	return READ_ONCE(un->nr_used) &&
	       time_before(jiffies, READ_ONCE(un->missed_at) +
				    DEMAND_DELAYS * unmapped_idle_delay);
}

/* Direct map. Nothing else in this file changes it. */

VISIBLE_IF_KUNIT int unmapped_set_valid(struct page *page, unsigned int nr,
					bool valid)
{
	KUNIT_STATIC_STUB_REDIRECT(unmapped_set_valid, page, nr, valid);

	return set_direct_map_valid_noflush(page, nr, valid);
}

/* Flushes TLBs: may sleep. A failure leaves the pages as they were. */
static int make_absent(struct page *page, unsigned int order)
{
	unsigned long addr = (unsigned long)page_address(page);
	int err;

	err = unmapped_set_valid(page, 1U << order, false);
	if (err) {
		/* What was changed is mapped by PTEs now, this cannot fail */
		unmapped_set_valid(page, 1U << order, true);
		return err;
	}
	flush_tlb_kernel_range(addr, addr + (PAGE_SIZE << order));

	return 0;
}

/* Any context that may reclaim: allocates no page tables, flushes nothing */
static int make_present(struct page *page, unsigned int order)
{
	return unmapped_set_valid(page, 1U << order, true);
}

/*
 * For pages that may need a page table to be made absent, which CPA asks for
 * with GFP_KERNEL. Those who do not want to try too hard would be given the
 * reserves for it.
 */
static unsigned int page_table_scope(gfp_t gfp)
{
	return memalloc_apply_gfp_scope(gfp & GFP_RECLAIM_MASK &
					~(__GFP_NORETRY | __GFP_RETRY_MAYFAIL));
}

static void window_set(struct unmapped_window *w, unsigned int i,
		       struct page *page)
{
	pgprot_t prot = __pgprot(pgprot_val(PAGE_KERNEL) & ~_PAGE_GLOBAL);

	set_pte_at(&init_mm, (unsigned long)w->addr + i * PAGE_SIZE,
		   w->ptes + i, mk_pte(page, prot));
}

static void window_clear(struct unmapped_window *w, unsigned int i)
{
	pte_clear(&init_mm, (unsigned long)w->addr + i * PAGE_SIZE, w->ptes + i);
}

/**
 * unmapped_page_map - map an absent page for a short access by this CPU
 * @page: page from unmapped_pages_alloc(), or any other
 * @irqflags: where to keep the interrupt state
 *
 * Other CPUs have no use for the returned address, and no TLB but this CPU's
 * gets to know it. Interrupts are off until unmapped_page_unmap(): work on one
 * page, then unmap it. Does not nest. Pages may be freed meanwhile.
 *
 * Context: Any but NMI, if unmapped_alloc_enabled().
 * Return: address of a writable mapping of the whole page, never NULL.
 */
void *unmapped_page_map(struct page *page, unsigned long *irqflags)
{
	struct unmapped_window *w;

	local_irq_save(*irqflags);
	w = this_cpu_ptr(&unmapped_window);
	VM_WARN_ON_ONCE(!pte_none(ptep_get(w->ptes)));
	window_set(w, 0, page);

	return w->addr;
}

/**
 * unmapped_page_unmap - end an access begun with unmapped_page_map()
 * @addr: what unmapped_page_map() returned
 * @irqflags: what it stored
 *
 * Context: That of unmapped_page_map().
 */
void unmapped_page_unmap(void *addr, unsigned long irqflags)
{
	struct unmapped_window *w = this_cpu_ptr(&unmapped_window);

	VM_WARN_ON_ONCE(addr != w->addr);
	window_clear(w, 0);
	flush_tlb_one_user((unsigned long)addr);
	local_irq_restore(irqflags);
}

/*
 * The window's PTEs are not global, and interrupts are off, so that no address
 * space but the current one has seen them. One CR3 write is cheaper than INVLPG
 * for each page where memory is freed in bulk.
 */
static void wipe_batch(struct page **pages, unsigned int nr)
{
	struct unmapped_window *w;
	unsigned int i;

	guard(irqsave)();
	w = this_cpu_ptr(&unmapped_window);
	for (i = 0; i < nr; i++)
		window_set(w, 1 + i, pages[i]);
	clear_pages(w->addr + PAGE_SIZE, nr);
	for (i = 0; i < nr; i++)
		window_clear(w, 1 + i);

	if (nr == 1)
		flush_tlb_one_user((unsigned long)w->addr + PAGE_SIZE);
	else
		flush_tlb_local();
}

static void wipe(struct page **pages, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i += WIPE_BATCH)
		wipe_batch(pages + i, min(nr - i, WIPE_BATCH));
}

static void wipe_chunk(struct page *page, unsigned int order)
{
	struct page *pages[WIPE_BATCH];
	unsigned int i, nr, left;

	for (left = 1U << order; left; left -= nr) {
		nr = min(left, WIPE_BATCH);
		for (i = 0; i < nr; i++)
			pages[i] = page++;
		wipe_batch(pages, nr);
	}
}

/* Refill: from the page allocator to the cache */

/*
 * Free pages that are as from free_pages_prepare(), which will be called again
 * and may write to them.
 */
static void release_pages_present(struct page *page, unsigned int order)
{
	debug_pagealloc_map_pages(page, 1 << order);
	unprep_unmapped_page(page, order);
	free_frozen_pages(page, order);
}

/* As far as the page allocator knows the pages are free */
static void zero_pages(struct page *page, unsigned int order)
{
	debug_pagealloc_map_pages(page, 1 << order);
	clear_pages(page_address(page), 1 << order);
}

VISIBLE_IF_KUNIT struct unmapped_block *
unmapped_new_block(unsigned long pfn, unsigned int order, gfp_t gfp)
{
	struct unmapped_block *b;

	KUNIT_STATIC_STUB_REDIRECT(unmapped_new_block, pfn, order, gfp);

	b = kzalloc_obj(*b, gfp);
	if (!b)
		return NULL;

	b->pfn = ALIGN_DOWN(pfn, BLOCK_PAGES);
	b->nid = pfn_to_nid(pfn);
	b->split = order < UNMAPPED_MAX_ORDER;
	INIT_LIST_HEAD(&b->list);
	INIT_LIST_HEAD(&b->watch);

	return b;
}

/* Nothing happens if it has become a block meanwhile */
static void unreserve_block(unsigned long pfn)
{
	xa_cmpxchg_irq(&unmapped_blocks, block_key(pfn), XA_ZERO_ENTRY, NULL, 0);
}

/*
 * The block of a page, with unmapped_node.lock held: @new, unless there is one
 * already. NULL if there must be none.
 */
static struct unmapped_block *node_block(struct unmapped_node *un,
					 struct page *page,
					 struct unmapped_block *new)
{
	unsigned long pfn = page_to_pfn(page);
	struct unmapped_block *b;
	int err;

	/* Isolated before the node is drained: memory to be offlined stays so */
	if (is_migrate_isolate_page(page))
		return NULL;

	b = xa_load(&unmapped_blocks, block_key(pfn));
	if (b)
		return b->nid == un->nid ? b : NULL;
	if (!new)
		return NULL;

	/* Allocates only if our caller's reservation was lost to a race */
	xa_lock(&unmapped_blocks);
	err = xa_err(__xa_store(&unmapped_blocks, block_key(pfn), new, GFP_NOWAIT));
	xa_unlock(&unmapped_blocks);
	if (err)
		return NULL;
	set_pfnblock_bit(page, pfn, PB_unmapped);

	return new;
}

/*
 * Enter absent pages, of which the first @nr_taken are handed out: none, or a
 * power of two. They belong to the block that there is for the pageblock, or to
 * @new, which is consumed unless this fails.
 */
static bool attach_pages(struct unmapped_block *new, struct page *page,
			 unsigned int order, unsigned int nr_taken)
{
	struct unmapped_node *un = page_node(page);
	unsigned int offset = page_to_pfn(page) % BLOCK_PAGES;
	struct unmapped_block *b;
	unsigned long flags;
	unsigned int nr;

	spin_lock_irqsave(&un->lock, flags);
	b = node_block(un, page, new);
	if (!b) {
		spin_unlock_irqrestore(&un->lock, flags);
		return false;
	}

	bitmap_set(b->owned, offset, 1U << order);
	b->nr_owned += 1U << order;
	/* It may have been watched, and may be mapped by a PMD by now */
	if (order == UNMAPPED_MAX_ORDER)
		b->split = false;
	if (!nr_taken)
		block_put(b, offset, order);
	for (nr = nr_taken; nr && nr < 1U << order; nr *= 2)
		block_put(b, offset + nr, ilog2(nr));
	b->freed_at = jiffies;
	node_relink(un, b);
	node_account(un, (1 << order) - nr_taken, nr_taken);
	spin_unlock_irqrestore(&un->lock, flags);

	if (b != new)
		kfree(new);

	return true;
}

/* Watching: blocks that are mapped by PTEs */

static bool is_watched(unsigned long pfn)
{
	struct unmapped_block *b;

	guard(rcu)();
	b = xa_load(&unmapped_blocks, block_key(pfn));

	return b && !list_empty_careful(&b->watch);
}

static void __unwatch(struct unmapped_block *b)
{
	list_del_init(&b->watch);
	if (!b->nr_owned)
		node_forget(b);
}

static void unwatch_all(struct unmapped_node *un)
{
	struct unmapped_block *b;

	do {
		scoped_guard(spinlock_irqsave, &un->lock) {
			b = list_first_entry_or_null(&un->watched,
						     struct unmapped_block, watch);
			if (b)
				__unwatch(b);
		}
		cond_resched();
	} while (b);
}

/*
 * Have pages that are freed in a split block collected. If it has no descriptor
 * it gets @new, which may be NULL. Returns the one that it has.
 */
static struct unmapped_block *watch_block(struct unmapped_node *un,
					  struct page *page,
					  struct unmapped_block *new)
{
	struct unmapped_block *b;

	guard(spinlock_irqsave)(&un->lock);
	b = node_block(un, page, new);
	if (b && b->split && list_empty(&b->watch))
		list_add(&b->watch, &un->watched);

	return b;
}

static void unwatch_block(struct unmapped_node *un, struct page *page)
{
	struct unmapped_block *b;

	guard(spinlock_irqsave)(&un->lock);
	b = xa_load(&unmapped_blocks, block_key(page_to_pfn(page)));
	if (b && b->nid == un->nid)
		__unwatch(b);
}

/* Watch a block that may not have been known before, or no longer */
static void set_watched(struct unmapped_node *un, struct page *page, bool watch)
{
	unsigned long pfn = page_to_pfn(page);
	struct unmapped_block *new = NULL;

	if (watch == is_watched(pfn))
		return;
	if (!watch) {
		unwatch_block(un, page);
		return;
	}

	if (get_pageblock_migratetype(page) < MIGRATE_PCPTYPES &&
	    page_zonenum(page) <= ZONE_NORMAL)
		new = unmapped_new_block(pfn, 0, GFP_KERNEL | __GFP_NOWARN);
	if (new && xa_reserve_irq(&unmapped_blocks, block_key(pfn),
				  GFP_KERNEL | __GFP_NOWARN)) {
		kfree(new);
		new = NULL;
	}

	if (watch_block(un, page, new) != new && new) {
		unreserve_block(pfn);
		kfree(new);
	}
}

/*
 * Take 1 << order pages, free of references, into the cache, and hand the first
 * 1 << take_order of them out. Frees them on failure.
 */
static bool cache_pages(struct page *page, unsigned int order,
			unsigned int take_order, gfp_t gfp)
{
	unsigned long pfn = page_to_pfn(page);
	struct unmapped_block *b;
	unsigned int scope;
	int err;

	/* Bad pages are lost */
	if (!free_pages_prepare(page, order))
		return false;
	zero_pages(page, order);

	gfp &= GFP_RECLAIM_MASK;
	b = unmapped_new_block(pfn, order, gfp);
	if (!b)
		goto err_present;

	if (xa_reserve_irq(&unmapped_blocks, block_key(pfn), gfp))
		goto err_free;

	scope = page_table_scope(gfp);
	err = make_absent(page, order);
	memalloc_restore_scope(scope);
	if (err)
		goto err_release;

	if (!attach_pages(b, page, order, 1U << take_order))
		goto err_absent;

	trace_unmapped_alloc_refill(pfn, order, page_to_nid(page));
	return true;

err_absent:
	make_present(page, order);
err_release:
	unreserve_block(pfn);
err_free:
	kfree(b);
err_present:
	release_pages_present(page, order);
	return false;
}

/* zone->lock is held. Not what is kept for others, nor the last of the zone. */
static bool may_take_from(struct page *page, unsigned int order)
{
	struct zone *zone = page_zone(page);

	return get_pageblock_migratetype(page) < MIGRATE_PCPTYPES &&
	       zone_watermark_ok(zone, 0, low_wmark_pages(zone) + (1UL << order),
				 ZONE_NORMAL, 0);
}

/*
 * Take the 1 << order pages that begin with @page if they are free. They are as
 * from free_pages_prepare() then.
 */
static bool isolate_free_pages(struct page *page, unsigned int order)
{
	guard(spinlock_irqsave)(&page_zone(page)->lock);
	if (!PageBuddy(page) || buddy_order(page) < order ||
	    !may_take_from(page, order))
		return false;

	take_free_pages(page, order);

	return true;
}

/*
 * A block of the same 1 GiB as others that are absent, so that few PUDs are
 * split.
 */
static struct page *get_near_block(struct unmapped_node *un, gfp_t gfp)
{
	unsigned long pfn = READ_ONCE(un->next_block);
	unsigned long start = ALIGN_DOWN(pfn - 1, PUD_PAGES);
	unsigned long key = block_key(start);
	unsigned int i;

	if (!xa_find(&unmapped_blocks, &key, block_key(start + PUD_PAGES - 1),
		     XA_PRESENT))
		return NULL;

	for (i = 0; i < PUD_PAGES / BLOCK_PAGES; i++, pfn += BLOCK_PAGES) {
		struct page *page;

		if (pfn == start + PUD_PAGES)
			pfn = start;
		page = pfn_to_online_page(pfn);
		if (!page || !PageBuddy(page) || page_to_nid(page) != un->nid ||
		    page_zonenum(page) > ZONE_NORMAL ||
		    !isolate_free_pages(page, UNMAPPED_MAX_ORDER))
			continue;

		post_alloc_hook(page, UNMAPPED_MAX_ORDER, gfp | __GFP_SKIP_ZERO,
				ALLOC_DEFAULT);
		return page;
	}

	return NULL;
}

VISIBLE_IF_KUNIT struct page *unmapped_get_pages(gfp_t gfp, unsigned int order,
						 int nid, nodemask_t *nodemask)
{
	struct page *page = NULL;

	KUNIT_STATIC_STUB_REDIRECT(unmapped_get_pages, gfp, order, nid, nodemask);

	/* From refill() */
	if (order == UNMAPPED_MAX_ORDER && (gfp & __GFP_THISNODE) &&
	    (gfp & __GFP_NORETRY))
		page = get_near_block(unmapped_nodes[nid], gfp);
	if (!page)
		page = __alloc_frozen_pages_noprof(gfp, order, nid, nodemask,
						   ALLOC_DEFAULT);

	return page;
}

static bool cache_block(struct page *page, unsigned int order, gfp_t gfp)
{
	if (!cache_pages(page, UNMAPPED_MAX_ORDER, order, gfp))
		return false;

	WRITE_ONCE(page_node(page)->next_block, page_to_pfn(page) + BLOCK_PAGES);
	count_vm_event(DIRECT_UNMAPPED_REFILL);

	return true;
}

/* From the node that is named, which may be used */
static struct page *refill(gfp_t gfp, unsigned int order, int nid)
{
	unsigned long *after = &unmapped_nodes[nid]->refill_after;
	struct page *page;

	/*
	 * Compaction is not to run for every page that has to be got elsewhere.
	 * With __GFP_NORETRY, there is no elsewhere.
	 */
	if (order < UNMAPPED_MAX_ORDER && !(gfp & __GFP_NORETRY) &&
	    time_before(jiffies, READ_ONCE(*after)))
		return NULL;

	gfp &= GFP_RECLAIM_MASK | GFP_CONSTRAINT_MASK;
	/* There is a fallback: do not try too hard, use no reserves */
	gfp &= ~(__GFP_NOFAIL | __GFP_RETRY_MAYFAIL | __GFP_HIGH |
		 __GFP_MEMALLOC);
	gfp |= __GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC | __GFP_THISNODE;

	page = unmapped_get_pages(gfp, UNMAPPED_MAX_ORDER, nid, NULL);
	if (!page || !cache_block(page, order, gfp)) {
		count_vm_event(DIRECT_UNMAPPED_REFILL_FAIL);
		WRITE_ONCE(*after, jiffies + unmapped_retry_delay);
		return NULL;
	}

	return page;
}

#ifdef CONFIG_CONTIG_ALLOC
/* Can what is in this block be migrated, so that all of it may be had? */
static bool block_is_movable(struct unmapped_node *un, unsigned long pfn)
{
	struct page *page = pfn_to_online_page(pfn);
	unsigned long i, step;
	struct zone *zone;

	if (!page || page_to_nid(page) != un->nid ||
	    page_zonenum(page) > ZONE_NORMAL)
		return false;
	zone = page_zone(page);
	if (!zone_spans_pfn(zone, pfn) ||
	    !zone_spans_pfn(zone, pfn + BLOCK_PAGES - 1))
		return false;

	/* Ours, or a large page that would take another one: both look movable */
	if (get_pfnblock_bit(page, pfn, PB_unmapped) ||
	    (PageCompound(page) &&
	     compound_order(compound_head(page)) >= UNMAPPED_MAX_ORDER))
		return false;

	guard(spinlock_irqsave)(&zone->lock);
	/* Free blocks look movable, too: leave the reserves alone */
	if (!may_take_from(page, UNMAPPED_MAX_ORDER))
		return false;
	for (i = 0; i < BLOCK_PAGES; i += step) {
		struct page *p = page + i;

		step = 1;
		/* Slabs and page tables have no references, nor have free pages */
		if (page_has_type(p) && !PageBuddy(p))
			return false;
		if (page_is_unmovable(zone, p, PB_ISOLATE_MODE_OTHER, &step))
			return false;
	}

	return true;
}

/*
 * Migrate what is in a block elsewhere. Compaction does not get as far, for a
 * request that has a fallback: it moves pages from one end of the zone to the
 * other for a while. Here all of memory gets its turn, CONTIG_SCAN blocks at a
 * time. Migration takes milliseconds, so nobody tries many blocks, nor soon
 * again after it was in vain, nor while somebody else does. It must not wait
 * for a folio that is locked or under writeback: that may be for ever, if a
 * daemon in user space has to end it, and perhaps waits for us.
 */
VISIBLE_IF_KUNIT struct page *unmapped_get_contig(gfp_t gfp, int nid)
{
	struct unmapped_node *un = unmapped_nodes[nid];
	unsigned long start = ALIGN(node_start_pfn(nid), BLOCK_PAGES);
	unsigned long end = ALIGN_DOWN(node_end_pfn(nid), BLOCK_PAGES);
	unsigned int scan = CONTIG_SCAN, tries = CONTIG_TRIES;
	unsigned long pfn = READ_ONCE(un->next_contig);
	struct page *page = NULL;

	KUNIT_STATIC_STUB_REDIRECT(unmapped_get_contig, gfp, nid);

	if ((gfp & GFP_KERNEL) != GFP_KERNEL ||
	    time_before(jiffies, READ_ONCE(un->contig_after)) ||
	    test_and_set_bit_lock(0, &un->contig_busy))
		return NULL;

	/* What is in a batch is not on the LRU yet, and cannot be migrated */
	lru_add_drain();
	for (; scan && tries; scan--, pfn += BLOCK_PAGES) {
		cond_resched();
		if (pfn < start || pfn >= end)
			pfn = start;
		if (!block_is_movable(un, pfn))
			continue;

		tries--;
		if (!alloc_contig_frozen_range(pfn, pfn + BLOCK_PAGES,
					       ACR_FLAGS_ASYNC, GFP_KERNEL |
					       __GFP_COMP | __GFP_NOWARN)) {
			page = pfn_to_page(pfn);
			break;
		}
	}
	if (!page)
		WRITE_ONCE(un->contig_after, jiffies + 10 * unmapped_retry_delay);
	WRITE_ONCE(un->next_contig, pfn);
	clear_bit_unlock(0, &un->contig_busy);

	return page;
}

#else
VISIBLE_IF_KUNIT struct page *unmapped_get_contig(gfp_t gfp, int nid)
{
	return NULL;
}
#endif

/* Make a block by migration */
static struct page *refill_contig(gfp_t gfp, unsigned int order, int nid)
{
	struct page *page = unmapped_get_contig(gfp, nid);

	if (!page || !cache_block(page, order, gfp))
		return NULL;
	count_vm_event(DIRECT_UNMAPPED_REFILL_CONTIG);

	return page;
}

/* No block is to be had: a request must not fail while others get memory */
static struct page *fallback(gfp_t gfp, unsigned int order, int nid,
			     nodemask_t *nodemask)
{
	struct page *page;

	gfp &= GFP_RECLAIM_MASK | GFP_CONSTRAINT_MASK;

	page = unmapped_get_pages(gfp, order, nid, nodemask);
	if (!page)
		return NULL;
	if (order == UNMAPPED_MAX_ORDER)
		return cache_block(page, order, gfp) ? page : NULL;
	if (!cache_pages(page, order, order, gfp))
		return NULL;
	count_vm_event(DIRECT_UNMAPPED_FALLBACK);
	/* It is split now: whatever else is free there comes next */
	watch_block(page_node(page), page, NULL);
	WRITE_ONCE(page_node(page)->collect_after, jiffies);

	return page;
}

/*
 * Collecting: from blocks that are split anyway. Chunks are on lists, with
 * their order in page->private, and as from free_pages_prepare().
 */

/* Returns true if @list was empty */
static bool list_chunk(struct page *page, unsigned int order,
		       struct llist_head *list)
{
	set_page_private(page, order);
	return llist_add(&page->pcp_llist, list);
}

static unsigned int unlist_chunk(struct page *page)
{
	unsigned int order = page_private(page);

	set_page_private(page, 0);
	return order;
}

/**
 * unmapped_collect - offer free pages of a split block
 * @page: first page; free_pages_prepare() has been called for all
 * @order: of the chunk, which is not the cache's
 *
 * Context: Any but NMI.
 * Return: true if the pages were taken, false if the caller has to free them.
 */
bool unmapped_collect(struct page *page, unsigned int order)
{
	struct unmapped_node *un = page_node(page);
	struct unmapped_block *b;
	unsigned int nr = 1U << order;

	/* Those who stop it wait for us */
	guard(rcu)();
	if (!READ_ONCE(un->collecting))
		return false;
	b = xa_load(&unmapped_blocks, block_key(page_to_pfn(page)));
	if (!b || list_empty_careful(&b->watch) || b->nid != un->nid)
		return false;
	if (order == UNMAPPED_MAX_ORDER)
		return false;
	if (atomic_long_read(&un->nr_collected) + nr > COLLECT_MAX)
		return false;
	if (atomic_long_add_return(nr, &un->nr_collected) > COLLECT_MAX) {
		atomic_long_sub(nr, &un->nr_collected);
		return false;
	}
	mod_node_page_state(NODE_DATA(un->nid), NR_KERNEL_MISC_RECLAIMABLE, nr);
	list_chunk(page, order, &un->collected);

	return true;
}

static struct llist_node *take_collected(struct unmapped_node *un)
{
	struct llist_node *list = llist_del_all(&un->collected);
	struct page *page;
	long nr = 0;

	llist_for_each_entry(page, list, pcp_llist)
		nr += 1L << page_private(page);
	atomic_long_sub(nr, &un->nr_collected);
	mod_node_page_state(NODE_DATA(un->nid), NR_KERNEL_MISC_RECLAIMABLE, -nr);

	return list;
}

/* Return the number of pages that went back */
static unsigned long return_collected(struct unmapped_node *un)
{
	struct page *page, *next;
	unsigned long nr = 0;

	/* Or they would come straight back */
	WRITE_ONCE(un->collecting, false);
	llist_for_each_entry_safe(page, next, take_collected(un), pcp_llist) {
		unsigned int order = unlist_chunk(page);

		release_pages_present(page, order);
		nr += 1UL << order;
	}

	return nr;
}

/*
 * Take a list of chunks into the cache, with one flush for all of them. Flushes
 * TLBs: may sleep.
 */
static unsigned long cache_list(struct llist_node *list, gfp_t gfp,
				enum vm_event_item event)
{
	unsigned long start = ULONG_MAX, end = 0, nr = 0;
	LLIST_HEAD(absent);
	struct page *page, *next;
	unsigned int order, scope;

	/* In case that a block is collapsed just now */
	scope = page_table_scope(gfp);
	llist_for_each_entry_safe(page, next, list, pcp_llist) {
		unsigned long addr = (unsigned long)page_address(page);

		/* Not what would split the block again */
		if (!is_watched(page_to_pfn(page))) {
			release_pages_present(page, unlist_chunk(page));
			continue;
		}
		order = page_private(page);
		zero_pages(page, order);
		if (unmapped_set_valid(page, 1U << order, false)) {
			unmapped_set_valid(page, 1U << order, true);
			release_pages_present(page, unlist_chunk(page));
			continue;
		}
		start = min(start, addr);
		end = max(end, addr + (PAGE_SIZE << order));
		llist_add(&page->pcp_llist, &absent);
		cond_resched();
	}
	memalloc_restore_scope(scope);
	if (llist_empty(&absent))
		return 0;

	flush_tlb_kernel_range(start, end);

	llist_for_each_entry_safe(page, next, llist_del_all(&absent), pcp_llist) {
		order = unlist_chunk(page);
		if (!attach_pages(NULL, page, order, 0)) {
			make_present(page, order);
			release_pages_present(page, order);
			continue;
		}
		nr += 1UL << order;
		trace_unmapped_alloc_collect(page_to_pfn(page), order,
					     page_to_nid(page));
	}
	count_vm_events(event, nr);

	return nr;
}

/* The watched block that was longest not looked at, or ULONG_MAX */
static unsigned long next_watched(struct unmapped_node *un)
{
	struct unmapped_block *b;

	guard(spinlock_irqsave)(&un->lock);
	b = list_first_entry_or_null(&un->watched, struct unmapped_block, watch);
	if (!b)
		return ULONG_MAX;
	list_move_tail(&b->watch, &un->watched);

	return b->pfn;
}

static unsigned long find_free_chunks(unsigned long pfn, unsigned int order,
				      struct llist_head *list)
{
	unsigned long end = pfn + BLOCK_PAGES, nr = 0;

	if (!pfn_to_online_page(pfn))
		return 0;

	while (pfn < end) {
		struct page *page = pfn_to_page(pfn);
		unsigned int o = order;

		/* A look without zone->lock first: the order may be anything */
		if (PageBuddy(page))
			o = clamp(buddy_order_unsafe(page), order,
				  UNMAPPED_MAX_ORDER - 1U);
		if (PageBuddy(page) && isolate_free_pages(page, o)) {
			list_chunk(page, o, list);
			nr += 1UL << o;
		}
		pfn = ALIGN(pfn + 1, 1UL << o);
	}

	return nr;
}

/*
 * Look for free pages in watched blocks. Returns when there are as many as a
 * caller will soon need, or when enough blocks had their turn.
 */
VISIBLE_IF_KUNIT unsigned long unmapped_collect_free(gfp_t gfp,
						     unsigned int order, int nid)
{
	struct unmapped_node *un = unmapped_nodes[nid];
	unsigned int scan = COLLECT_SCAN;
	unsigned long nr = 0, pfn;
	LLIST_HEAD(list);

	KUNIT_STATIC_STUB_REDIRECT(unmapped_collect_free, gfp, order, nid);

	if (order == UNMAPPED_MAX_ORDER ||
	    time_before(jiffies, READ_ONCE(un->collect_after)))
		return 0;

	while (nr < COLLECT_FREE_MAX && scan--) {
		pfn = next_watched(un);
		if (pfn == ULONG_MAX)
			break;
		nr += find_free_chunks(pfn, order, &list);
		cond_resched();
	}
	/* A fallback adds a block that is worth a look, and ends the wait */
	if (!nr)
		WRITE_ONCE(un->collect_after, jiffies + unmapped_retry_delay);

	return cache_list(llist_del_all(&list), gfp, DIRECT_UNMAPPED_COLLECT_FREE);
}

/* Wiping and merging */

static void free_unlock(struct unmapped_node *un, int nr, unsigned long flags)
{
	bool kick;

	node_account(un, nr, -nr);
	un->freed = true;
	kick = un->orders[FILL_SPLIT] || un->nr_idle > node_reserve(un);
	spin_unlock_irqrestore(&un->lock, flags);

	if (kick && !delayed_work_pending(&un->return_work))
		queue_delayed_work(system_freezable_wq, &un->return_work,
				   unmapped_idle_delay);
}

/* Put wiped chunks of one order back */
static void free_wiped(struct page **pages, unsigned int nr, unsigned int order)
{
	struct unmapped_block *b = NULL;
	struct unmapped_node *un = NULL;
	unsigned int i, first = 0;
	unsigned long flags;

	for (i = 0; i < nr; i++) {
		unsigned long pfn = page_to_pfn(pages[i]);

		if (page_node(pages[i]) != un) {
			if (un)
				free_unlock(un, (i - first) << order, flags);
			first = i;
			un = page_node(pages[i]);
			spin_lock_irqsave(&un->lock, flags);
		}
		if (!b || b->pfn != ALIGN_DOWN(pfn, BLOCK_PAGES))
			b = xa_load(&unmapped_blocks, block_key(pfn));

		block_put(b, pfn % BLOCK_PAGES, order);
		b->freed_at = jiffies;
		node_relink(un, b);
		trace_unmapped_alloc_free(pfn, order, un->nid);
	}
	free_unlock(un, (nr - first) << order, flags);
}

/**
 * unmapped_nr_owned - count the cache's pages among pages that are being freed
 * @page: first page
 * @nr: number of pages, which all lie in one pageblock
 *
 * Context: Any.
 * Return: how many of the pages came from the cache.
 */
unsigned int unmapped_nr_owned(const struct page *page, unsigned int nr)
{
	unsigned long pfn = page_to_pfn(page);
	unsigned int offset = pfn % BLOCK_PAGES;
	struct unmapped_block *b;
	unsigned int i, ours = 0;

	/* A page that spans blocks cannot have been handed out */
	if (nr > BLOCK_PAGES)
		return 0;

	guard(rcu)();
	b = xa_load(&unmapped_blocks, block_key(pfn));
	if (!b)
		return 0;

	for (i = 0; i < nr; i++)
		ours += test_bit(offset + i, b->owned);

	return ours;
}

/**
 * unmapped_free - take back pages
 * @page: first page; free_pages_prepare() has been called for all
 * @order: of the chunk, whose pages are all the cache's
 * @nolock: the caller may hold any lock, or be in NMI
 *
 * Context: Any.
 */
void unmapped_free(struct page *page, unsigned int order, bool nolock)
{
	struct unmapped_node *un = page_node(page);

	/* Where interrupts are off already, they stay so for one page at most */
	if (likely(!nolock && (!order || !irqs_disabled()))) {
		wipe_chunk(page, order);
		free_wiped(&page, 1, order);
		return;
	}

	if (!list_chunk(page, order, &un->deferred))
		return;
	if (nolock)
		irq_work_queue(&un->deferred_irq_work);
	else
		queue_work(system_dfl_wq, &un->deferred_work);
}

/**
 * unmapped_free_folios - take back single pages
 * @folios: folios of order 0 that came from the cache; free_pages_prepare() has
 *	been called for them
 * @nr: their number, at most FOLIO_BATCH_SIZE
 *
 * Context: Any but NMI.
 */
void unmapped_free_folios(struct folio **folios, unsigned int nr)
{
	struct page *pages[FOLIO_BATCH_SIZE];
	unsigned int i;

	for (i = 0; i < nr; i++)
		pages[i] = &folios[i]->page;

	wipe(pages, nr);
	free_wiped(pages, nr, 0);
}

static void wipe_deferred(struct unmapped_node *un)
{
	struct llist_node *list = llist_del_all(&un->deferred);
	struct page *page, *next;

	llist_for_each_entry_safe(page, next, list, pcp_llist) {
		unsigned int order = unlist_chunk(page);

		wipe_chunk(page, order);
		free_wiped(&page, 1, order);
		cond_resched();
	}
}

static void deferred_work_fn(struct work_struct *work)
{
	wipe_deferred(container_of(work, struct unmapped_node, deferred_work));
}

static void deferred_irq_work_fn(struct irq_work *work)
{
	struct unmapped_node *un =
		container_of(work, struct unmapped_node, deferred_irq_work);

	queue_work(system_dfl_wq, &un->deferred_work);
}

static bool chunk_poisoned(const struct page *page, unsigned int order)
{
	unsigned int i;

	for (i = 0; i < 1U << order; i++)
		if (unlikely(PageHWPoison(page + i)))
			return true;

	return false;
}

/*
 * Take a free chunk of a block. memory_failure() cannot take out pages that are
 * free here, this can: what is bad counts as used, for ever, and is handed on
 * neither to a user nor to the page allocator. The rest of the chunk goes back,
 * and NULL is returned.
 */
static struct page *node_take_chunk(struct unmapped_node *un,
				    struct unmapped_block *b,
				    unsigned int order)
{
	unsigned int i, nr_bad = 0, offset = block_take(b, order);
	struct page *page = pfn_to_page(b->pfn + offset);

	if (unlikely(chunk_poisoned(page, order))) {
		/* The bad page is not free any more, so this ends */
		for (i = 0; i < 1U << order; i++) {
			if (PageHWPoison(page + i))
				nr_bad++;
			else
				block_put(b, offset + i, 0);
		}
		node_account(un, -(int)nr_bad, nr_bad);
		page = NULL;
	}
	node_relink(un, b);

	return page;
}

/* Allocation */

static struct page *node_take(struct unmapped_node *un, unsigned int order)
{
	struct unmapped_block *b;
	struct page *page = NULL;

	while (!page) {
		b = node_find(un, order);
		if (!b)
			return NULL;
		page = node_take_chunk(un, b, order);
	}
	node_account(un, -(1 << order), 1 << order);

	return page;
}

static struct page *take_cached(int nid, unsigned int order)
{
	struct unmapped_node *un = unmapped_nodes[nid];

	guard(spinlock_irqsave)(&un->lock);
	return node_take(un, order);
}

static unsigned int take_cached_bulk(int nid, unsigned int nr,
				     struct page **pages)
{
	struct unmapped_node *un = unmapped_nodes[nid];
	unsigned int i;

	guard(spinlock_irqsave)(&un->lock);
	for (i = 0; i < nr; i++) {
		pages[i] = node_take(un, 0);
		if (!pages[i])
			break;
	}

	return i;
}

static bool node_allowed(int nid, gfp_t gfp, const nodemask_t *nodemask)
{
	if (nodemask && !node_isset(nid, *nodemask))
		return false;

	if (!cpusets_enabled())
		return true;

	/* As for the page allocator: these do not fail for a cpuset's sake */
	if ((gfp & __GFP_HIGH) && !gfpflags_allow_blocking(gfp))
		return true;

	return __cpuset_zone_allowed(&NODE_DATA(nid)->node_zones[0],
				     gfp | __GFP_HARDWALL);
}

/*
 * Cached pages, or blocks, of other nodes that the caller may use, nearest to
 * @nid first
 */
static struct page *take_remote(gfp_t gfp, unsigned int order, int nid,
				nodemask_t *nodemask, bool may_refill)
{
	struct zoneref *z;
	struct zone *zone;
	struct page *page;
	int n = nid;

	if (nr_online_nodes == 1)
		return NULL;

	for_each_zone_zonelist_nodemask(zone, z, node_zonelist(nid, gfp),
					ZONE_NORMAL, nodemask) {
		/* A node has several zones */
		if (zone_to_nid(zone) == n)
			continue;
		n = zone_to_nid(zone);
		if (!node_allowed(n, gfp, nodemask))
			continue;
		page = may_refill ? refill(gfp, order, n) : take_cached(n, order);
		if (page)
			return page;
	}

	return NULL;
}

static struct page *alloc_slow(gfp_t gfp, unsigned int order, int nid,
			       nodemask_t *nodemask)
{
	struct unmapped_node *un = unmapped_nodes[nid];
	bool allowed = node_allowed(nid, gfp, nodemask);
	struct page *page = NULL;

	if (!gfpflags_allow_blocking(gfp) || (current->flags & PF_MEMALLOC))
		return take_remote(gfp, order, nid, nodemask, false);

	if (allowed && !llist_empty(&un->deferred)) {
		wipe_deferred(un);
		page = take_cached(nid, order);
		if (page)
			return page;
	}

	/* What is freed in split blocks will be used */
	WRITE_ONCE(un->missed_at, jiffies);
	if (!READ_ONCE(un->collecting))
		unmapped_alloc_heal_later();

	if (allowed && !llist_empty(&un->collected)) {
		cache_list(take_collected(un), gfp, DIRECT_UNMAPPED_COLLECT);
		page = take_cached(nid, order);
		if (page)
			return page;
	}

	if (allowed)
		page = refill(gfp, order, nid);
	if (!page)
		page = take_remote(gfp, order, nid, nodemask, false);
	if (!page)
		page = take_remote(gfp, order, nid, nodemask, true);
	if (page || (gfp & __GFP_NORETRY))
		return page;

	if (allowed)
		page = refill_contig(gfp, order, nid);
	if (!page && allowed && unmapped_collect_free(gfp, order, nid))
		page = take_cached(nid, order);
	/* The page allocator may let it out of its cpuset, in the end */
	if (!page)
		page = fallback(gfp, order, nid, nodemask);

	return page;
}

/* Cached pages may be of any zone, so those who need a low one are refused */
static bool can_serve(gfp_t gfp, unsigned int order)
{
	return unmapped_alloc_enabled() && order <= UNMAPPED_MAX_ORDER &&
	       !(gfp & (__GFP_DMA | __GFP_DMA32));
}

/**
 * unmapped_alloc_frozen - allocate for the page allocator
 * @gfp: as for unmapped_pages_alloc(), after current_gfp_context()
 * @order: allocate 1 << @order pages
 * @nid: preferred node
 * @nodemask: allowed nodes, or NULL for all
 *
 * Does not charge for __GFP_ACCOUNT.
 *
 * Context: That of unmapped_pages_alloc().
 * Return: as unmapped_pages_alloc(), without a reference.
 */
struct page *unmapped_alloc_frozen(gfp_t gfp, unsigned int order, int nid,
				   nodemask_t *nodemask)
{
	struct page *page = NULL;
	bool hit;

	if (!can_serve(gfp, order)) {
		WARN_ON_ONCE(gfp & __GFP_NOFAIL);
		return NULL;
	}

	might_alloc(gfp);
	if (should_fail_alloc_page(gfp, order))
		return NULL;

	/* Neither applies, and would only choose zones that do not serve */
	gfp &= ~(__GFP_HIGHMEM | __GFP_MOVABLE);

	if (node_allowed(nid, gfp, nodemask))
		page = take_cached(nid, order);
	hit = page;
	while (!page) {
		page = alloc_slow(gfp, order, nid, nodemask);
		if (page)
			break;
		if (!(gfp & __GFP_NOFAIL) ||
		    WARN_ON_ONCE(!gfpflags_allow_blocking(gfp)))
			return NULL;
		memalloc_retry_wait(gfp);
	}

	prep_unmapped_page(page, order, gfp);
	trace_unmapped_alloc_alloc(page_to_pfn(page), order, gfp, hit);

	return page;
}

/**
 * unmapped_alloc_bulk - allocate single pages for the page allocator
 * @gfp: as for unmapped_alloc_frozen()
 * @nid: preferred node
 * @nodemask: allowed nodes, or NULL for all
 * @nr_pages: size of @pages
 * @pages: where pages are put instead of NULLs
 *
 * Context: That of unmapped_pages_alloc().
 * Return: number of elements of @pages up to the first that could not be
 * filled. The pages have a reference each.
 */
unsigned int unmapped_alloc_bulk(gfp_t gfp, int nid, nodemask_t *nodemask,
				 unsigned int nr_pages, struct page **pages)
{
	unsigned int i = 0;

	while (i < nr_pages) {
		unsigned int end = i;

		while (end < nr_pages && !pages[end])
			end++;
		if (can_serve(gfp, 0) && node_allowed(nid, gfp, nodemask))
			end = i + take_cached_bulk(nid, end - i, pages + i);
		else
			end = i;

		for (; i < end; i++) {
			prep_unmapped_page(pages[i], 0, gfp);
			set_page_refcounted(pages[i]);
			trace_unmapped_alloc_alloc(page_to_pfn(pages[i]), 0, gfp,
						   true);
		}

		if (i < nr_pages && !pages[i]) {
			pages[i] = unmapped_alloc_frozen(gfp, 0, nid, nodemask);
			if (!pages[i])
				break;
			set_page_refcounted(pages[i]);
		}
		while (i < nr_pages && pages[i])
			i++;
	}

	return i;
}

/**
 * unmapped_pages_alloc - allocate pages that are absent from the direct map
 * @gfp: how to allocate. Modifiers mean what they mean to alloc_pages(), but:
 *	pages are zero with or without __GFP_ZERO. Without __GFP_DIRECT_RECLAIM
 *	only pages that are in the cache are handed out. With __GFP_NORETRY no
 *	2 MiB page of the direct map is split. __GFP_DMA and __GFP_DMA32 are
 *	refused, __GFP_HIGHMEM and __GFP_MOVABLE do not apply.
 * @order: allocate 1 << @order pages, at most UNMAPPED_MAX_ORDER
 * @nid: preferred node, or NUMA_NO_NODE for that of the CPU
 *
 * Free them as pages of alloc_pages(): put_page(), __free_pages(), vfree() of
 * an area that they are mapped in. They are wiped then, and need not be mapped
 * again before. Use unmapped_page_map() or vmap() to access them, and call
 * vm_unmap_aliases() after vunmap(), before they are freed.
 *
 * Context: Any but NMI. May sleep with __GFP_DIRECT_RECLAIM. With PF_MEMALLOC
 * only pages that are in the cache are handed out, and no reserves.
 * Return: the first page, or NULL if there is no memory, if the request is
 * refused, or if unmapped_alloc_enabled() is false. Never a page that is
 * present in the direct map.
 */
struct page *unmapped_pages_alloc_noprof(gfp_t gfp, unsigned int order, int nid)
{
	struct page *page;

	gfp = current_gfp_context(gfp & gfp_allowed_mask);
	if (nid == NUMA_NO_NODE)
		nid = numa_mem_id();

	page = unmapped_alloc_frozen(gfp, order, nid, NULL);
	if (!page)
		return NULL;
	set_page_refcounted(page);

	if (memcg_kmem_online() && (gfp & __GFP_ACCOUNT) &&
	    __memcg_kmem_charge_page(page, gfp, order)) {
		__free_pages(page, order);
		return NULL;
	}

	return page;
}

/* Healing: split blocks are collapsed, or watched */

/*
 * What was collapsed, by pfn, plus one for what is mapped by a PUD, with the
 * number of times in the low bits, and in the others when
 */
static DEFINE_XARRAY(unmapped_healed);

/* When the direct map may be looked at again, in jiffies */
static unsigned long heal_after = INITIAL_JIFFIES;

/* @delay, or what is left of the rest if that is longer, in jiffies */
static unsigned long with_rest(unsigned long delay)
{
	unsigned long now = jiffies, after = READ_ONCE(heal_after);

	return time_before(now + delay, after) ? after - now : delay;
}

static unsigned int healed_tries(void *entry)
{
	return xa_to_value(entry) & (BIT(HEAL_TRIES_BITS) - 1);
}

/* In jiffies */
static unsigned long healed_age(void *entry)
{
	unsigned long mask = LONG_MAX >> HEAL_TRIES_BITS;

	return (jiffies - (xa_to_value(entry) >> HEAL_TRIES_BITS)) & mask;
}

static unsigned long healed_delay(void *entry)
{
	return unmapped_heal_delay << healed_tries(entry);
}

/* It stayed as it was for so long that it starts again as one of the others */
static bool healed_for_good(void *entry)
{
	return healed_age(entry) > 4 * healed_delay(entry);
}

static void remember_healed(unsigned long key, unsigned int tries)
{
	unsigned long now = jiffies;

	now <<= HEAL_TRIES_BITS;
	now |= min(tries, HEAL_TRIES_MAX);
	xa_store(&unmapped_healed, key, xa_mk_value(now & LONG_MAX),
		 GFP_KERNEL | __GFP_NOWARN);
}

/**
 * struct heal_pass - a look at the direct map of one node
 * @force: nothing has to wait
 * @lock_tries: how often locks of others may be waited for
 * @wait: when the next one of those that have to wait has its turn, in jiffies
 */
struct heal_pass {
	bool		force;
	unsigned int	lock_tries;
	unsigned long	wait;
};

/*
 * Collapse a range if it is time to. Attributes may be changed back and forth
 * for ever, and a collapse flushes the TLBs of all CPUs as a split does: what
 * was collapsed and is split again has to wait, each time twice as long.
 */
static bool heal(struct heal_pass *pass, unsigned long pfn, unsigned long size)
{
	unsigned long key = pfn + (size == PUD_SIZE);
	void *entry = xa_load(&unmapped_healed, key);
	unsigned int tries = 0;
	int ret;

	if (entry && !healed_for_good(entry)) {
		if (!pass->force && healed_age(entry) < healed_delay(entry)) {
			pass->wait = min(pass->wait, healed_delay(entry) -
						     healed_age(entry));
			return false;
		}
		tries = healed_tries(entry) + 1;
	}

	/* -EAGAIN is for a lock that somebody else holds */
	while ((ret = set_direct_map_collapse(pfn_to_page(pfn), size)) == -EAGAIN) {
		if (!pass->lock_tries) {
			pass->wait = min(pass->wait, unmapped_heal_delay);
			return false;
		}
		pass->lock_tries--;
		fsleep(USEC_PER_MSEC);
	}
	if (ret <= 0)
		return false;

	trace_unmapped_alloc_collapse(pfn, get_order(size), pfn_to_nid(pfn));
	/* If there is no memory for that, it is collapsed sooner the next time */
	remember_healed(key, tries);

	return true;
}

static void heal_range(struct heal_pass *pass, struct unmapped_node *un,
		       unsigned long start, unsigned long end)
{
	bool collect = READ_ONCE(un->collecting);
	unsigned long pfn;

	for (pfn = set_direct_map_find_split(start, end); pfn < end;
	     pfn = set_direct_map_find_split(pfn + BLOCK_PAGES, end)) {
		struct page *page = pfn_to_online_page(pfn);

		if (page && page_to_nid(page) == un->nid)
			set_watched(un, page,
				    !heal(pass, pfn, PMD_SIZE) && collect);
		cond_resched();
	}

	pfn = ALIGN_DOWN(start, PUD_PAGES);
	if (pfn_to_online_page(pfn) && pfn_to_nid(pfn) == un->nid)
		heal(pass, pfn, PUD_SIZE);
}

/* Return how long to wait for those that it was too early for, in jiffies */
static unsigned long heal_node(struct unmapped_node *un, bool force)
{
	unsigned long pfn = ALIGN_DOWN(node_start_pfn(un->nid), BLOCK_PAGES);
	unsigned long end = node_end_pfn(un->nid);
	struct heal_pass pass = { .force = force, .wait = MAX_JIFFY_OFFSET };
	unsigned long next;

	/* Or one would have a block watched that another one has just collapsed */
	guard(mutex)(&heal_mutex);
	for (; pfn < end; pfn = next) {
		next = min(ALIGN(pfn + 1, PUD_PAGES), end);
		/* Keeps the page tables of this memory from being removed */
		get_online_mems();
		if (!force && node_in_demand(un))
			WRITE_ONCE(un->collecting, true);
		pass.lock_tries = HEAL_LOCK_TRIES;
		heal_range(&pass, un, pfn, next);
		put_online_mems();
		cond_resched();
	}

	/* That ends it when there is no more demand */
	if (node_watches(un))
		queue_delayed_work(system_freezable_wq, &un->return_work,
				   unmapped_idle_delay);

	return pass.wait;
}

static void heal_work_fn(struct work_struct *work)
{
	unsigned long wait = MAX_JIFFY_OFFSET, start = jiffies, key;
	void *entry;
	int nid;

	for_each_node_state(nid, N_MEMORY)
		wait = min(wait, heal_node(unmapped_nodes[nid], false));
	WRITE_ONCE(heal_after, jiffies + HEAL_REST * (jiffies - start));

	xa_for_each(&unmapped_healed, key, entry)
		if (healed_for_good(entry))
			xa_erase(&unmapped_healed, key);

	if (wait != MAX_JIFFY_OFFSET)
		mod_delayed_work(heal_wq, &heal_retry_work, with_rest(wait));
}

/**
 * unmapped_alloc_heal_later - the direct map was changed
 *
 * What is mapped by small pages, and could be mapped by large ones again, will
 * be, some time later.
 *
 * Context: Any but NMI.
 */
void unmapped_alloc_heal_later(void)
{
	/* Orders the change before a look that is about to begin */
	if (unmapped_enabled)
		queue_delayed_work(heal_wq, &heal_work,
				   with_rest(unmapped_heal_delay));
}

/* Return: from the cache to the page allocator */

static struct unmapped_block *node_find_unused(struct unmapped_node *un,
					       unsigned int fill,
					       unsigned long before)
{
	unsigned long orders = un->orders[fill];
	struct unmapped_block *b;
	unsigned int order;

	for_each_set_bit(order, &orders, NR_ORDERS) {
		b = list_last_entry(&un->blocks[fill][order],
				    struct unmapped_block, list);
		if (!time_after(b->freed_at, before))
			return b;
	}

	return NULL;
}

/*
 * Take a free chunk out of the cache, of an idle block or of a split one, that
 * was not freed after @before
 */
static struct page *node_remove(struct unmapped_node *un, unsigned int fill,
				unsigned long before, unsigned int *order)
{
	struct page *page = NULL;
	struct unmapped_block *b;

	while (!page) {
		b = node_find_unused(un, fill, before);
		if (!b)
			return NULL;
		*order = b->top;
		page = node_take_chunk(un, b, *order);
	}

	bitmap_clear(b->owned, page_to_pfn(page) % BLOCK_PAGES, 1U << *order);
	b->nr_owned -= 1U << *order;
	node_account(un, -(1 << *order), 0);
	if (!b->nr_owned) {
		b->split = true;
		if (list_empty(&b->watch))
			node_forget(b);
	}

	return page;
}

/* Returns the number of pages that went back, 0 if there was nothing */
static unsigned int return_one(struct unmapped_node *un, unsigned int fill,
			       unsigned long before)
{
	unsigned int order;
	struct page *page;

	scoped_guard(spinlock_irqsave, &un->lock)
		page = node_remove(un, fill, before, &order);
	if (!page)
		return 0;

	/* Better lose the pages than hand them on absent */
	if (WARN_ON_ONCE(make_present(page, order)))
		return 1U << order;

	trace_unmapped_alloc_return(page_to_pfn(page), order, un->nid);
	if (fill == FILL_IDLE)
		count_vm_event(DIRECT_UNMAPPED_RETURN);
	release_pages_present(page, order);

	return 1U << order;
}

static unsigned long return_unused(struct unmapped_node *un, unsigned int fill,
				   unsigned long before)
{
	unsigned long nr, total = 0;

	while ((nr = return_one(un, fill, before))) {
		total += nr;
		cond_resched();
	}

	return total;
}

static void return_work_fn(struct work_struct *work)
{
	struct unmapped_node *un = container_of(to_delayed_work(work),
						struct unmapped_node, return_work);
	unsigned long before = jiffies - unmapped_idle_delay;
	unsigned long nr_used, keep;

	/* Whoever frees after this finds that the work is not pending */
	scoped_guard(spinlock_irqsave, &un->lock)
		nr_used = un->nr_used;

	/*
	 * What looks used may be folios that were freed while other CPUs' LRU
	 * batches held them, and would do so for ever on idle CPUs. This leaves
	 * CPUs alone whose batches are empty, and all if nothing was freed.
	 */
	if (nr_used && nr_used <= num_online_cpus() * FOLIO_BATCH_SIZE &&
	    READ_ONCE(un->freed)) {
		WRITE_ONCE(un->freed, false);
		lru_add_drain_all();
	}

	wipe_deferred(un);

	while (READ_ONCE(un->nr_idle) > node_reserve(un) &&
	       return_one(un, FILL_IDLE, before))
		cond_resched();
	/* In demand, what goes back is collected again: up to as many pages stay */
	keep = node_in_demand(un) ? COLLECT_MAX : 0;
	while (READ_ONCE(un->nr_split) > keep &&
	       return_one(un, FILL_SPLIT, before))
		cond_resched();
	if (node_watches(un) && !node_in_demand(un)) {
		/* Those who saw it set are done after that */
		WRITE_ONCE(un->collecting, false);
		synchronize_rcu();
		return_collected(un);
		unwatch_all(un);
	}

	if (READ_ONCE(un->nr_idle) > node_reserve(un) ||
	    READ_ONCE(un->orders[FILL_SPLIT]) || node_watches(un))
		queue_delayed_work(system_freezable_wq, &un->return_work,
				   unmapped_idle_delay);
}

static unsigned long return_all(struct unmapped_node *un)
{
	unsigned long nr;

	flush_work(&un->deferred_work);
	wipe_deferred(un);
	nr = return_unused(un, FILL_IDLE, jiffies) +
	     return_unused(un, FILL_SPLIT, jiffies) + return_collected(un);
	unwatch_all(un);

	return nr;
}

/**
 * unmapped_alloc_drain - give all unused blocks back to the page allocator
 * @nid: node to drain, not NUMA_NO_NODE
 *
 * What is present is mapped by as large pages as it can be when this returns,
 * unless somebody else was changing page tables all the time, or a CPU came or
 * went: then soon after.
 *
 * Context: May sleep. Takes the memory hotplug lock, so not for its notifiers.
 * Return: number of pages given back, 0 if the cache is off.
 */
unsigned long unmapped_alloc_drain(int nid)
{
	struct unmapped_node *un = unmapped_nodes[nid];
	unsigned long nr;

	if (!unmapped_alloc_enabled())
		return 0;

	lru_add_drain_all();
	nr = return_all(un);
	if (heal_node(un, true) != MAX_JIFFY_OFFSET)
		unmapped_alloc_heal_later();

	return nr;
}

static unsigned long shrink_count(struct shrinker *shrinker,
				  struct shrink_control *sc)
{
	struct unmapped_node *un = unmapped_nodes[sc->nid];
	unsigned long nr = READ_ONCE(un->nr_idle) * BLOCK_PAGES +
			   READ_ONCE(un->nr_split) +
			   atomic_long_read(&un->nr_collected);

	return nr ?: SHRINK_EMPTY;
}

static unsigned long shrink_scan(struct shrinker *shrinker,
				 struct shrink_control *sc)
{
	struct unmapped_node *un = unmapped_nodes[sc->nid];
	unsigned long nr, freed = return_collected(un);

	while (freed < sc->nr_to_scan) {
		nr = return_one(un, FILL_IDLE, jiffies) ?:
		     return_one(un, FILL_SPLIT, jiffies);
		if (!nr)
			break;
		freed += nr;
	}

	return freed ?: SHRINK_STOP;
}

/*
 * Idle blocks need not go into the image of a hibernation, and folios that LRU
 * batches keep from being wiped must not.
 */
static int unmapped_pm_notify(struct notifier_block *nb, unsigned long action,
			      void *unused)
{
	int nid;

	switch (action) {
	case PM_HIBERNATION_PREPARE:
		for_each_node_state(nid, N_MEMORY)
			unmapped_alloc_drain(nid);
		/* saveable_page() walks the page tables, which a collapse frees */
		disable_delayed_work_sync(&heal_work);
		disable_delayed_work_sync(&heal_retry_work);
		break;
	case PM_POST_HIBERNATION:
		enable_delayed_work(&heal_work);
		enable_delayed_work(&heal_retry_work);
		unmapped_alloc_heal_later();
		break;
	}

	return NOTIFY_OK;
}

/* Cached pages look free to memory offlining, but could never be isolated */
static int unmapped_mem_notify(struct notifier_block *nb, unsigned long action,
			       void *arg)
{
	struct memory_notify *mn = arg;
	unsigned long key = block_key(mn->start_pfn);
	struct unmapped_node *un;

	if (action != MEM_GOING_OFFLINE)
		return NOTIFY_OK;

	un = page_node(pfn_to_page(mn->start_pfn));
	WRITE_ONCE(un->collecting, false);
	synchronize_rcu();
	return_all(un);
	if (xa_find(&unmapped_blocks, &key,
		    block_key(mn->start_pfn + mn->nr_pages - 1), XA_PRESENT))
		return notifier_from_errno(-EBUSY);

	return NOTIFY_OK;
}

static struct notifier_block unmapped_pm_nb = {
	.notifier_call = unmapped_pm_notify,
};

/* Start-up */

static bool unmapped_off __initdata;

static int __init unmapped_alloc_setup(char *str)
{
	if (strcmp(str, "off"))
		return 0;
	unmapped_off = true;
	return 1;
}
__setup("unmapped_alloc=", unmapped_alloc_setup);

/**
 * unmapped_alloc_enabled - can pages be allocated from the cache?
 *
 * Context: Any.
 * Return: true if the cache was not switched off, and could be set up. Does not
 * change after boot.
 */
bool unmapped_alloc_enabled(void)
{
	return unmapped_enabled;
}

static int __init init_window_pte(pte_t *pte, unsigned long addr, void *data)
{
	struct unmapped_window *w = data;

	if (addr == (unsigned long)w->addr)
		w->ptes = pte;

	return 0;
}

/*
 * Each CPU's window is aligned to its size, so that its PTEs lie in one page
 * table. VM_SPARSE keeps those who read the vmalloc area from following them.
 */
static int __init init_windows(void)
{
	unsigned long size = UNMAPPED_WINDOW_PAGES * PAGE_SIZE;
	struct vm_struct *area;
	unsigned long addr;
	unsigned int cpu;

	BUILD_BUG_ON(PTRS_PER_PTE % UNMAPPED_WINDOW_PAGES);
	BUILD_BUG_ON(WIPE_BATCH < FOLIO_BATCH_SIZE);

	area = get_vm_area((num_possible_cpus() + 1) * size, VM_SPARSE);
	if (!area)
		return -ENOMEM;

	addr = ALIGN((unsigned long)area->addr, size);
	for_each_possible_cpu(cpu) {
		struct unmapped_window *w = per_cpu_ptr(&unmapped_window, cpu);

		w->addr = (void *)addr;
		if (apply_to_page_range(&init_mm, addr, size, init_window_pte,
					w)) {
			free_vm_area(area);
			return -ENOMEM;
		}
		addr += size;
	}

	return 0;
}

static struct unmapped_node *__init alloc_node(int nid)
{
	struct unmapped_node *un;
	unsigned int fill, order;

	un = kzalloc_node(sizeof(*un), GFP_KERNEL,
			  node_state(nid, N_MEMORY) ? nid : NUMA_NO_NODE);
	if (!un)
		return NULL;

	un->nid = nid;
	spin_lock_init(&un->lock);
	for (fill = 0; fill < NR_FILLS; fill++)
		for (order = 0; order < NR_ORDERS; order++)
			INIT_LIST_HEAD(&un->blocks[fill][order]);
	INIT_LIST_HEAD(&un->watched);
	init_llist_head(&un->deferred);
	init_llist_head(&un->collected);
	INIT_DELAYED_WORK(&un->return_work, return_work_fn);
	INIT_WORK(&un->deferred_work, deferred_work_fn);
	/* Lazy: freeing pages sends no interrupt, not even to this CPU */
	un->deferred_irq_work = IRQ_WORK_INIT_LAZY(deferred_irq_work_fn);

	return un;
}

/**
 * unmapped_alloc_init - set up the cache
 *
 * Context: Before all users: initcalls of all kinds use text that is allocated.
 * After all of memory has its struct pages.
 */
void __init unmapped_alloc_init(void)
{
	struct shrinker *shrinker;
	const char *why;
	int nid;

	BUILD_BUG_ON(pageblock_order != UNMAPPED_MAX_ORDER);
	BUILD_BUG_ON(UNMAPPED_MAX_ORDER > MAX_PAGE_ORDER);

	why = "switched off on the command line";
	if (unmapped_off)
		goto off;

	why = "the direct map cannot be changed";
	if (!can_set_direct_map())
		goto off;

	why = "no memory";
	if (init_windows())
		goto off;

	/* Not bound to a CPU: there may be terabytes to look at */
	heal_wq = alloc_workqueue("unmapped_heal", WQ_UNBOUND | WQ_FREEZABLE, 1);
	if (!heal_wq)
		goto off;

	for_each_node(nid) {
		unmapped_nodes[nid] = alloc_node(nid);
		if (!unmapped_nodes[nid])
			goto off_free;
	}

	shrinker = shrinker_alloc(SHRINKER_NUMA_AWARE, "unmapped_alloc");
	if (!shrinker)
		goto off_free;
	shrinker->count_objects = shrink_count;
	shrinker->scan_objects = shrink_scan;
	shrinker_register(shrinker);

	hotplug_memory_notifier(unmapped_mem_notify, DEFAULT_CALLBACK_PRI);
	register_pm_notifier(&unmapped_pm_nb);

	unmapped_enabled = true;
	return;

off_free:
	destroy_workqueue(heal_wq);
	for_each_node(nid) {
		kfree(unmapped_nodes[nid]);
		unmapped_nodes[nid] = NULL;
	}
off:
	pr_info("off: %s\n", why);
}

#ifdef CONFIG_UNMAPPED_ALLOC_KUNIT_TEST
/* Does a block's mini buddy agree with its own counters? */
static bool block_check(const struct unmapped_block *b)
{
	u16 nr_chunks[NR_ORDERS] = {};
	struct page *page = block_page(b);
	unsigned int i, nr_free = 0;
	bool ok = true;

	for_each_set_bit(i, b->free, 2 * BLOCK_PAGES) {
		unsigned int order = UNMAPPED_MAX_ORDER + 1 - fls(i);
		unsigned int offset = (i << order) - BLOCK_PAGES;
		unsigned int next;

		ok &= i > 0;
		/* Merged, not inside another free chunk, and owned */
		ok &= i == 1 || !test_bit(i ^ 1, b->free);
		ok &= !chunk_is_free(b, i / 2);
		next = find_next_zero_bit(b->owned, BLOCK_PAGES, offset);
		ok &= next >= offset + (1U << order);
		nr_chunks[order]++;
		nr_free += 1U << order;
	}

	ok &= nr_free == b->nr_free;
	ok &= !memcmp(nr_chunks, b->nr_chunks, sizeof(nr_chunks));
	ok &= bitmap_weight(b->owned, BLOCK_PAGES) == b->nr_owned;
	ok &= b->nr_free <= b->nr_owned;
	ok &= b->nr_owned || !list_empty(&b->watch);
	ok &= list_empty(&b->list) == !b->nr_free;
	ok &= b->split || b->nr_owned == BLOCK_PAGES;
	ok &= get_pfnblock_bit(page, page_to_pfn(page), PB_unmapped);

	return ok;
}

/* For tests: 0 if all that is counted twice is equal, or -EUCLEAN */
int unmapped_alloc_check(int nid)
{
	struct unmapped_node *un = unmapped_nodes[nid];
	unsigned long nr_free = 0, nr_owned = 0, nr_idle = 0, nr_split = 0, key;
	struct unmapped_block *b;
	bool ok = true;

	guard(spinlock_irqsave)(&un->lock);
	xa_for_each(&unmapped_blocks, key, b) {
		if (pfn_to_nid(b->pfn) != nid)
			continue;
		ok &= block_check(b);
		nr_free += b->nr_free;
		nr_owned += b->nr_owned;
		nr_idle += block_is_idle(b);
		nr_split += b->split ? b->nr_free : 0;
	}
	ok &= nr_free == un->nr_free && nr_owned == un->nr_free + un->nr_used;
	ok &= nr_idle == un->nr_idle && nr_split == un->nr_split;

	return ok ? 0 : -EUCLEAN;
}

/* For tests: wait for pages that were freed where they could not be wiped */
void unmapped_alloc_flush_deferred(int nid)
{
	struct unmapped_node *un = unmapped_nodes[nid];

	irq_work_sync(&un->deferred_irq_work);
	flush_work(&un->deferred_work);
	/* It may have found them first */
	flush_work(&un->return_work.work);
}

/* For tests: wait for a change of the direct map to have its effect */
void unmapped_alloc_flush_heal(void)
{
	flush_delayed_work(&heal_work);
}

/* For tests: nothing is to be done, and nothing has been healed yet */
void unmapped_alloc_reset(void)
{
	int nid;

	cancel_delayed_work_sync(&heal_work);
	cancel_delayed_work_sync(&heal_retry_work);
	WRITE_ONCE(heal_after, jiffies);
	for_each_node_state(nid, N_MEMORY) {
		struct unmapped_node *un = unmapped_nodes[nid];

		cancel_delayed_work_sync(&un->return_work);
		WRITE_ONCE(un->collecting, false);
		WRITE_ONCE(un->refill_after, jiffies);
		WRITE_ONCE(un->contig_after, jiffies);
		WRITE_ONCE(un->collect_after, jiffies);
	}
	xa_destroy(&unmapped_healed);
}
#endif
