/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef COMMON_SMALL_PAGES_H
#define COMMON_SMALL_PAGES_H

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

/*
 * Asks the kernel to fill memory with small pages only. Returns 0 on success. EINVAL counts as success: a kernel
 * without large pages does not know the advice and does not need it.
 */
static inline int ask_for_small_pages(void *at, size_t bytes)
{
	return madvise(at, bytes, MADV_NOHUGEPAGE) && errno != EINVAL ? -1 : 0;
}

#endif
