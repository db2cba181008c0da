/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM unmapped_alloc

#if !defined(_TRACE_UNMAPPED_ALLOC_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_UNMAPPED_ALLOC_H

#include <linux/tracepoint.h>
#include <linux/types.h>
#include <trace/events/mmflags.h>

TRACE_EVENT(unmapped_alloc_alloc,

	TP_PROTO(unsigned long pfn, unsigned int order, gfp_t gfp, bool hit),

	TP_ARGS(pfn, order, gfp, hit),

	TP_STRUCT__entry(
		__field(unsigned long,	pfn)
		__field(unsigned int,	order)
		__field(unsigned long,	gfp)
		__field(bool,		hit)
	),

	TP_fast_assign(
		__entry->pfn	= pfn;
		__entry->order	= order;
		__entry->gfp	= (__force unsigned long)gfp;
		__entry->hit	= hit;
	),

	TP_printk("pfn=0x%lx order=%u gfp_flags=%s hit=%d",
		  __entry->pfn, __entry->order,
		  show_gfp_flags(__entry->gfp), __entry->hit)
);

DECLARE_EVENT_CLASS(unmapped_alloc_pages,

	TP_PROTO(unsigned long pfn, unsigned int order, int nid),

	TP_ARGS(pfn, order, nid),

	TP_STRUCT__entry(
		__field(unsigned long,	pfn)
		__field(unsigned int,	order)
		__field(int,		nid)
	),

	TP_fast_assign(
		__entry->pfn	= pfn;
		__entry->order	= order;
		__entry->nid	= nid;
	),

	TP_printk("pfn=0x%lx order=%u nid=%d",
		  __entry->pfn, __entry->order, __entry->nid)
);

/* Pages came back from a user */
DEFINE_EVENT(unmapped_alloc_pages, unmapped_alloc_free,
	TP_PROTO(unsigned long pfn, unsigned int order, int nid),
	TP_ARGS(pfn, order, nid)
);

/* Pages were taken from the page allocator and out of the direct map */
DEFINE_EVENT(unmapped_alloc_pages, unmapped_alloc_refill,
	TP_PROTO(unsigned long pfn, unsigned int order, int nid),
	TP_ARGS(pfn, order, nid)
);

/* Pages went back to the page allocator, present in the direct map */
DEFINE_EVENT(unmapped_alloc_pages, unmapped_alloc_return,
	TP_PROTO(unsigned long pfn, unsigned int order, int nid),
	TP_ARGS(pfn, order, nid)
);

/* Pages were taken into the cache from a block that is split */
DEFINE_EVENT(unmapped_alloc_pages, unmapped_alloc_collect,
	TP_PROTO(unsigned long pfn, unsigned int order, int nid),
	TP_ARGS(pfn, order, nid)
);

/* A range of the direct map is mapped by a large page again */
DEFINE_EVENT(unmapped_alloc_pages, unmapped_alloc_collapse,
	TP_PROTO(unsigned long pfn, unsigned int order, int nid),
	TP_ARGS(pfn, order, nid)
);

#endif /* _TRACE_UNMAPPED_ALLOC_H */

#include <trace/define_trace.h>
