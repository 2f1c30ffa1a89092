// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `dontneed`: pages are dropped under DMA and read as zeros from then on; a successor takes them. What was
 * acknowledged before must be gone, what is acknowledged after must be there, and nothing may land in the successor.
 */
#define _GNU_SOURCE
#include "successors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MOST_BLOCKS	4u

static void prepare(struct disturbance *self)
{
	self->state = xcalloc(1, sizeof(struct successors));
}

static void disturb(struct disturbance *self)
{
	struct arena *arena = &self->storm->arena;
	uint32_t count = 1 + (uint32_t)rng_below(&self->rng, MOST_BLOCKS);
	uint32_t first = arena_claim_some(arena, count, &self->rng);
	uint64_t frames[MOST_BLOCKS * (STORM_BLOCK / BLOCK)];
	const uint32_t pages = STORM_BLOCK / BLOCK;
	struct successors *successors = self->state;

	storm_await_at(self->storm, first, count, 4);
	for (uint32_t i = 0; i < count; i++)
		pages_look(arena->ledger.blocks[first + i].address, pages, frames + i * pages);
	ledger_replace(&arena->ledger, first, count);
	for (uint32_t i = 0; i < count; i++)
		if (madvise(arena->ledger.blocks[first + i].address, STORM_BLOCK, MADV_DONTNEED))
			die("MADV_DONTNEED: %s", strerror(errno));
	ledger_replaced(&arena->ledger, first, count);
	successors_take(self->storm, successors, frames, count * pages);
	storm_await_at(self->storm, first, count, 4);
	arena_release(arena, first, count);
	self->effect = successors->inherited;
}

static void finish(struct disturbance *self)
{
	successors_finish(self->storm, self->state);
	free(self->state);
}

const struct disturber disturber_dontneed = {
	.name = "dontneed",
	.what = "MADV_DONTNEED under DMA, the pages given to another owner",
	.unit = "pages_inherited",
	.goal = 60,
	.prepare = prepare,
	.disturb = disturb,
	.finish = finish,
};
