/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Pages that are absent from the direct map.
 * See Documentation/mm/unmapped-alloc.rst.
 */
#ifndef _LINUX_UNMAPPED_ALLOC_H
#define _LINUX_UNMAPPED_ALLOC_H

#include <linux/alloc_tag.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/mmzone.h>

/* The largest order there is: a block of 2 MiB, mapped by one PMD */
#define UNMAPPED_MAX_ORDER	(PMD_SHIFT - PAGE_SHIFT)

/* Each CPU's window on absent pages: one for access, and a batch of folios */
#define UNMAPPED_WINDOW_PAGES	32

/* For the page allocator only, which does not call them without the cache */
unsigned int unmapped_nr_owned(const struct page *page, unsigned int nr);
void unmapped_free(struct page *page, unsigned int order, bool nolock);
void unmapped_free_folios(struct folio **folios, unsigned int nr);
bool unmapped_collect(struct page *page, unsigned int order);
struct page *unmapped_alloc_frozen(gfp_t gfp, unsigned int order, int nid,
				   nodemask_t *nodemask);
unsigned int unmapped_alloc_bulk(gfp_t gfp, int nid, nodemask_t *nodemask,
				 unsigned int nr_pages, struct page **pages);

#ifdef CONFIG_UNMAPPED_ALLOC

void unmapped_alloc_init(void);
bool unmapped_alloc_enabled(void);

struct page *unmapped_pages_alloc_noprof(gfp_t gfp, unsigned int order, int nid);
#define unmapped_pages_alloc(...) \
	alloc_hooks(unmapped_pages_alloc_noprof(__VA_ARGS__))

void *unmapped_page_map(struct page *page, unsigned long *irqflags);
void unmapped_page_unmap(void *addr, unsigned long irqflags);

unsigned long unmapped_alloc_drain(int nid);
void unmapped_alloc_heal_later(void);

/**
 * is_unmapped_page - is this one of unmapped_alloc's pages?
 * @page: any page that is neither freed nor allocated meanwhile
 *
 * Context: Any.
 * Return: true if @page was handed out by the cache, or is free in it: it is
 * absent from the direct map, and page_address() must not be dereferenced.
 */
static inline bool is_unmapped_page(const struct page *page)
{
	return get_pfnblock_bit(page, page_to_pfn(page), PB_unmapped) &&
	       unmapped_nr_owned(page, 1);
}

#if IS_ENABLED(CONFIG_KUNIT)
/* The steps of a refill, for tests to make them fail */
struct unmapped_block;
struct page *unmapped_get_pages(gfp_t gfp, unsigned int order, int nid,
				nodemask_t *nodemask);
struct unmapped_block *unmapped_new_block(unsigned long pfn, unsigned int order,
					  gfp_t gfp);
int unmapped_set_valid(struct page *page, unsigned int nr, bool valid);
struct page *unmapped_get_contig(gfp_t gfp, int nid);
unsigned long unmapped_collect_free(gfp_t gfp, unsigned int order, int nid);
#endif

#ifdef CONFIG_UNMAPPED_ALLOC_KUNIT_TEST
extern unsigned long unmapped_idle_delay;
extern unsigned long unmapped_heal_delay;
extern unsigned long unmapped_retry_delay;
int unmapped_alloc_check(int nid);
void unmapped_alloc_flush_deferred(int nid);
void unmapped_alloc_flush_heal(void);
void unmapped_alloc_reset(void);
#endif

#else /* !CONFIG_UNMAPPED_ALLOC */

static inline void unmapped_alloc_init(void)
{
}

static inline bool unmapped_alloc_enabled(void)
{
	return false;
}

static inline struct page *unmapped_pages_alloc(gfp_t gfp, unsigned int order,
						int nid)
{
	return NULL;
}

static inline void *unmapped_page_map(struct page *page, unsigned long *irqflags)
{
	local_irq_save(*irqflags);
	return kmap_local_page(page);
}

static inline void unmapped_page_unmap(void *addr, unsigned long irqflags)
{
	kunmap_local(addr);
	local_irq_restore(irqflags);
}

static inline unsigned long unmapped_alloc_drain(int nid)
{
	return 0;
}

static inline void unmapped_alloc_heal_later(void)
{
}

static inline bool is_unmapped_page(const struct page *page)
{
	return false;
}

#endif /* CONFIG_UNMAPPED_ALLOC */

#endif /* _LINUX_UNMAPPED_ALLOC_H */
