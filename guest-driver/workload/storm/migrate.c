// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `migrate`: the kernel moves pages to other frames under DMA. By move_pages() from node to node, if there are
 * two (numa=fake=2 on the kernel's command line will do); and by compacting memory that is full of holes.
 */
#define _GNU_SOURCE
#include "kernel.h"
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOVE_OWN	(1 << 1)	/* MPOL_MF_MOVE */
#define PAGES		128u		/* by one call of move_pages() */
#define HOLES_BYTES	(8 * MIB)
#define COMPACT_EVERY	8u

struct migrate_state {
	int nodes;
	uint64_t *before, *after;	/* frames of all pages of the arena */
};

static uint32_t arena_pages(const struct arena *arena)
{
	return (uint32_t)(arena->bytes / BLOCK);
}

static void move_some(struct disturbance *self, const struct migrate_state *state)
{
	const struct arena *arena = &self->storm->arena;
	uint64_t first = rng_below(&self->rng, arena_pages(arena) - PAGES);
	int nodes[PAGES], status[PAGES], node = (int)rng_below(&self->rng, (uint64_t)state->nodes);
	void *pages[PAGES];

	for (uint32_t i = 0; i < PAGES; i++) {
		pages[i] = arena->base + (first + i) * BLOCK;
		nodes[i] = node;
	}
	/* Pages that are absent, or shared, or in use this moment, stay where they are. */
	syscall(SYS_move_pages, 0, PAGES, pages, nodes, status, MOVE_OWN);
}

/* Memory with a hole beside every page: something to compact. */
static void compact(void)
{
	char *holes = mmap(NULL, HOLES_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (holes == MAP_FAILED)
		die("out of memory for holes");
	madvise(holes, HOLES_BYTES, MADV_NOHUGEPAGE);
	for (uint64_t at = 0; at < HOLES_BYTES; at += BLOCK)
		holes[at] = 1;
	for (uint64_t at = 0; at < HOLES_BYTES; at += 2 * BLOCK)
		madvise(holes + at, BLOCK, MADV_DONTNEED);
	knob_must("/proc/sys/vm/compact_memory", "1");
	munmap(holes, HOLES_BYTES);
}

static void disturb(struct disturbance *self)
{
	struct migrate_state *state = self->state;
	const struct arena *arena = &self->storm->arena;
	bool compacting = state->nodes == 1 || self->count % COMPACT_EVERY == 0;
	uint64_t migrated = vmstat("pgmigrate_success");

	pages_look(arena->base, arena_pages(arena), state->before);
	if (compacting)
		compact();
	else
		move_some(self, state);
	migrated = vmstat("pgmigrate_success") - migrated;
	pages_look(arena->base, arena_pages(arena), state->after);
	/* A page changes its frame for other reasons too; migration accounts for no more than it counts. */
	for (uint32_t i = 0; i < arena_pages(arena) && migrated; i++)
		if (state->before[i] && state->after[i] && state->before[i] != state->after[i]) {
			self->effect++;
			migrated--;
		}
	storm_await(self->storm, 10);
}

static void prepare(struct disturbance *self)
{
	struct migrate_state *state = xcalloc(1, sizeof(*state));
	char path[64];

	for (state->nodes = 1; state->nodes < 64; state->nodes++) {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d", state->nodes);
		if (access(path, F_OK))
			break;
	}
	state->before = xcalloc(arena_pages(&self->storm->arena), sizeof(uint64_t));
	state->after = xcalloc(arena_pages(&self->storm->arena), sizeof(uint64_t));
	self->state = state;
}

static void finish(struct disturbance *self)
{
	struct migrate_state *state = self->state;

	free(state->before);
	free(state->after);
	free(state);
}

const struct disturber disturber_migrate = {
	.name = "migrate",
	.what = "pages moved to other frames under DMA, by move_pages() and compaction",
	.unit = "pages_migrated",
	.goal = 40,
	.prepare = prepare,
	.disturb = disturb,
	.finish = finish,
};
