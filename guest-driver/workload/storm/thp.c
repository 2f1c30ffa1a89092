// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `thp`: small pages are collapsed into a page of 2 MiB and split again in every way: by the kernel on
 * request, by dropping a part, by a new mapping of a part, by unmapping a part for a while.
 */
#define _GNU_SOURCE
#include "kernel.h"
#include "run.h"

#include <errno.h>
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25	/* Linux 6.1 */
#endif

#define SPLIT_FILE	"/sys/kernel/debug/split_huge_pages"
#define FIRST_HUGE	1u	/* the twins keep their small pages */
#define HUGE_COUNT	((uint32_t)(ANON_BYTES / HUGE_BLOCK) - FIRST_HUGE)

struct thp_state {
	uint64_t splits;	/* of mappings, before */
};

/* New memory in place of some. */
static void map_anew(char *address, uint64_t bytes, int rights)
{
	if (mmap(address, bytes, rights, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != address)
		die("a new mapping of a part: %s", strerror(errno));
	madvise(address, bytes, MADV_HUGEPAGE);
}

static void split_by_request(char *start)
{
	knob_set(SPLIT_FILE, "%d,0x%lx,0x%lx,0", getpid(), (unsigned long)start,
		 (unsigned long)(start + HUGE_BLOCK));
}

static void split_by_throwing_away(struct ledger *ledger, uint32_t index)
{
	ledger_replace(ledger, index, 1);
	if (madvise(ledger->blocks[index].address, STORM_BLOCK, MADV_DONTNEED))
		die("MADV_DONTNEED: %s", strerror(errno));
	ledger_replaced(ledger, index, 1);
}

static void split_by_new_mapping(struct ledger *ledger, uint32_t index)
{
	ledger_replace(ledger, index, 1);
	map_anew(ledger->blocks[index].address, STORM_BLOCK, PROT_READ | PROT_WRITE);
	ledger_replaced(ledger, index, 1);
}

/* Where others may map memory, the hole is kept by a mapping without rights. */
static void split_by_unmapping(struct storm *storm, uint32_t index)
{
	struct ledger *ledger = &storm->arena.ledger;
	char *address = ledger->blocks[index].address;

	ledger_replace(ledger, index, 1);
	ledger_set_state(ledger, index, 1, BLOCK_CHANGING);
	if (!storm->alone)
		map_anew(address, STORM_BLOCK, PROT_NONE);
	else if (munmap(address, STORM_BLOCK))
		die("munmap: %s", strerror(errno));
	ledger_set_state(ledger, index, 1, BLOCK_GONE);
	storm_await_at(storm, index, 1, 4);
	ledger_set_state(ledger, index, 1, BLOCK_CHANGING);
	map_anew(address, STORM_BLOCK, PROT_READ | PROT_WRITE);
	ledger_replaced(ledger, index, 1);
	ledger_set_state(ledger, index, 1, BLOCK_OPEN);
}

static void split_part(struct disturbance *self, uint32_t huge, uint64_t how)
{
	struct arena *arena = &self->storm->arena;
	uint32_t index = huge * HUGE_BLOCKS + (uint32_t)rng_below(&self->rng, HUGE_BLOCKS);

	if (!arena_claim(arena, index, 1))
		return;
	if (arena->ledger.blocks[index].address != arena_home(arena, index))
		how = 1;
	if (how == 1)
		split_by_throwing_away(&arena->ledger, index);
	else if (how == 2)
		split_by_new_mapping(&arena->ledger, index);
	else
		split_by_unmapping(self->storm, index);
	storm_await_at(self->storm, index, 1, 4);
	arena_release(arena, index, 1);
}

/* A part that was mapped again stays a separate mapping, which no huge page crosses: so map all of it again. */
static void heal(struct storm *storm, uint32_t huge)
{
	struct arena *arena = &storm->arena;
	uint32_t first = huge * HUGE_BLOCKS;
	bool home = true;

	if (!arena_claim(arena, first, HUGE_BLOCKS))
		return;
	for (uint32_t i = first; i < first + HUGE_BLOCKS; i++)
		home &= arena->ledger.blocks[i].address == arena_home(arena, i);
	if (home) {
		ledger_replace(&arena->ledger, first, HUGE_BLOCKS);
		map_anew(arena_home(arena, first), HUGE_BLOCK, PROT_READ | PROT_WRITE);
		ledger_replaced(&arena->ledger, first, HUGE_BLOCKS);
	}
	storm_await_at(storm, first, HUGE_BLOCKS, 6);
	arena_release(arena, first, HUGE_BLOCKS);
}

static void disturb(struct disturbance *self)
{
	uint32_t huge = FIRST_HUGE + (uint32_t)rng_below(&self->rng, HUGE_COUNT);
	char *start = arena_home(&self->storm->arena, huge * HUGE_BLOCKS);
	uint64_t how = rng_below(&self->rng, 4);

	if (!madvise(start, HUGE_BLOCK, MADV_COLLAPSE))
		self->effect++;
	else if (errno == EINVAL)
		heal(self->storm, huge);
	arena_attract(&self->storm->arena, huge * HUGE_BLOCKS, HUGE_BLOCKS);
	storm_await(self->storm, 12);
	arena_distract(&self->storm->arena, huge * HUGE_BLOCKS, HUGE_BLOCKS);
	if (how)
		split_part(self, huge, how);
	else
		split_by_request(start);
}

static void prepare(struct disturbance *self)
{
	struct thp_state *state = xcalloc(1, sizeof(*state));
	char *start = arena_home(&self->storm->arena, FIRST_HUGE * HUGE_BLOCKS);

	if (access(SPLIT_FILE, F_OK) && mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL))
		die("mount debugfs: %s", strerror(errno));
	if (madvise(start, HUGE_COUNT * HUGE_BLOCK, MADV_HUGEPAGE))
		die("MADV_HUGEPAGE: %s", strerror(errno));
	state->splits = vmstat("thp_split_pmd");
	self->state = state;
}

static void finish(struct disturbance *self)
{
	const struct thp_state *state = self->state;

	if (self->storm->alone && (vmstat("thp_split_pmd") == state->splits))
		storm_complain(self->storm, "no huge page was split");
	free(self->state);
}

const struct disturber disturber_thp = {
	.name = "thp",
	.what = "huge pages collapsed and split under DMA",
	.unit = "collapses",
	.goal = 40,
	.prepare = prepare,
	.disturb = disturb,
	.finish = finish,
};
