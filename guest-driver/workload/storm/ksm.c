// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `ksm`: pages of equal content become one, write-protected, under DMA: a write to one of them must not be seen
 * in the others. The twin blocks are written with equal records, round by round.
 */
#define _GNU_SOURCE
#include "kernel.h"
#include "run.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define KSM		"/sys/kernel/mm/ksm/"
#define UNMERGE_EVERY	8u

static void prepare(struct disturbance *self)
{
	const struct arena *arena = &self->storm->arena;

	if (madvise(arena->base, ANON_BYTES, MADV_MERGEABLE))
		die("MADV_MERGEABLE: %s: is KSM in this kernel?", strerror(errno));
	knob_must(KSM "pages_to_scan", "3000");
	knob_must(KSM "sleep_millisecs", "5");
	knob_set(KSM "smart_scan", "0");
	knob_must(KSM "run", "1");
}

static void disturb(struct disturbance *self)
{
	struct storm *storm = self->storm;
	int64_t scans = knob_get(KSM "full_scans"), sharing;

	/* A page is merged when it has not changed from one scan to the next. */
	while (knob_get(KSM "full_scans") < scans + 2 && !storm->ending)
		storm_await(storm, 2);
	sharing = knob_get(KSM "pages_sharing");
	self->effect += sharing > 0 ? (uint64_t)sharing : 0;
	arena_attract(&storm->arena, 0, TWIN_BLOCKS);
	traffic_set_twin_round(storm->traffic, (uint32_t)self->count + 2);
	if (self->count % UNMERGE_EVERY == UNMERGE_EVERY - 1) {
		knob_must(KSM "run", "2");
		knob_must(KSM "run", "1");
	}
	storm_await(storm, 40);
	arena_distract(&storm->arena, 0, TWIN_BLOCKS);
}

static void finish(struct disturbance *self)
{
	(void)self;
	knob_must(KSM "run", "2");
	knob_must(KSM "run", "0");
}

const struct disturber disturber_ksm = {
	.name = "ksm",
	.what = "equal pages merged under DMA, and parted by it",
	.unit = "pages_merged",
	.goal = 16,
	.prepare = prepare,
	.disturb = disturb,
	.finish = finish,
};
