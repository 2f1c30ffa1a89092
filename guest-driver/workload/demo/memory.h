/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the kernel holds: for showing that dead processes leave nothing behind. */
#ifndef DEMO_MEMORY_H
#define DEMO_MEMORY_H

#include "common/util.h"

#include <stdio.h>

/* In KiB, from /proc/meminfo, and the RDMA objects as the kernel's resource tracker counts them. */
struct kernel_state {
	uint64_t available;		/* with the free pages kept for each CPU */
	uint64_t unreclaimable;		/* slab */
	uint64_t page_tables;		/* of processes and of the kernel */
	uint64_t iommu_tables;
	uint64_t stacks;
	uint64_t percpu;
	char rdma[512];			/* a line per device */
};

/* Drops caches, waits for deferred freeing, and looks. */
void kernel_state_settled(struct kernel_state *state);

/*
 * Looks until the kernel holds no more than `before`, within what an idle system varies, for some seconds: what
 * is leaked never comes back. False and what is left over if it does not; `after` is what was seen last. `mapped` is
 * how many bytes were mapped for DMA at once: Linux keeps the IOMMU's tables for those addresses.
 */
bool kernel_state_awaited(const struct kernel_state *before, struct kernel_state *after, uint64_t mapped, char *what,
			  size_t size);

#endif
