/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef REFAULT_SMALL_PAGES_H
#define REFAULT_SMALL_PAGES_H

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

/* Memory that the kernel is to fill page by page. Returns 0 on success. A kernel that has no large pages does not know the
 * advice, and does not need it. */
static inline int ask_for_small_pages(void *at, size_t bytes)
{
	return madvise(at, bytes, MADV_NOHUGEPAGE) && errno != EINVAL ? -1 : 0;
}

#endif
