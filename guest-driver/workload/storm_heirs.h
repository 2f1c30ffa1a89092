/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Somebody else's pages: fresh memory that is taken right after pages were freed, so that it gets those, filled
 * with a pattern and looked at later. Whoever still writes to the freed pages writes there.
 */
#ifndef STORM_HEIRS_H
#define STORM_HEIRS_H

#include "storm_run.h"

#define HEIRS		6
#define HEIR_PAGES	256u

struct heirs {
	uint64_t *pages[HEIRS];
	uint32_t next;
	uint64_t inherited;	/* pages that were the arena's before */
};

/* `frames` of `count` pages were freed. The oldest heir is looked at, and makes room. */
void heirs_take(struct storm *storm, struct heirs *heirs, const uint64_t *frames, uint32_t count);

/* Looks at all, and lets them go. */
void heirs_finish(struct storm *storm, struct heirs *heirs);

#endif
