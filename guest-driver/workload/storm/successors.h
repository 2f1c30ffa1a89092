/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The next owner of freed pages: memory allocated right after pages of the arena were freed, so that it gets those. It
 * is filled with a pattern and checked later: a late write to a freed page shows there.
 */
#ifndef STORM_SUCCESSORS_H
#define STORM_SUCCESSORS_H

#include "run.h"

#define SUCCESSORS	6
#define SUCCESSOR_PAGES	256u

struct successors {
	uint64_t *pages[SUCCESSORS];
	uint32_t next;
	uint64_t inherited;	/* pages that were the arena's before */
};

/* `frames` of `count` pages were freed. Checks the oldest successor and frees it to make room. */
void successors_take(struct storm *storm, struct successors *successors, const uint64_t *frames, uint32_t count);

/* Checks and frees all of them. */
void successors_finish(struct storm *storm, struct successors *successors);

#endif
