/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What mm/page_alloc.h of v7.3 has, for unmapped_alloc.c: here it is in
 * internal.h, and functions do not take alloc_flags.
 */
#ifndef __MM_PAGE_ALLOC_H
#define __MM_PAGE_ALLOC_H

#include "internal.h"

#define ALLOC_DEFAULT	0
#define post_alloc_hook(page, order, gfp, alloc_flags) \
	post_alloc_hook(page, order, gfp)
#define __alloc_frozen_pages_noprof(gfp, order, nid, nodemask, alloc_flags) \
	__alloc_frozen_pages_noprof(gfp, order, nid, nodemask)

#endif /* __MM_PAGE_ALLOC_H */
