// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `mprotect`: blocks lose the right to be written, or all rights, and get them back. Meanwhile DMA that needs the
 * right must fail with remote access error, because the kernel refuses the page, and leave no byte; with
 * PROT_READ, reads go on.
 */
#define _GNU_SOURCE
#include "run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MOST_BLOCKS	3u

static void protect(struct disturbance *self, uint32_t first, uint32_t count, int rights, enum block_state state)
{
	struct ledger *ledger = &self->storm->arena.ledger;

	ledger_set_state(ledger, first, count, BLOCK_CHANGING);
	for (uint32_t i = first; i < first + count; i++)
		if (mprotect(ledger->blocks[i].address, STORM_BLOCK, rights))
			die("mprotect: %s", strerror(errno));
	ledger_set_state(ledger, first, count, state);
}

static void copy_out(struct disturbance *self, uint32_t first, uint32_t count, char *copy)
{
	for (uint32_t i = 0; i < count; i++)
		memcpy(copy + i * STORM_BLOCK, self->storm->arena.ledger.blocks[first + i].address, STORM_BLOCK);
}

static void disturb(struct disturbance *self)
{
	struct storm *storm = self->storm;
	uint32_t count = 1 + (uint32_t)rng_below(&self->rng, MOST_BLOCKS);
	uint32_t first = arena_claim_some(&storm->arena, count, &self->rng);
	bool readable = rng_below(&self->rng, 2);
	char *before = xcalloc(2 * count, STORM_BLOCK), *after = before + count * STORM_BLOCK;
	uint64_t refused = storm->tally.refused;

	storm_await_at(storm, first, count, 4);
	protect(self, first, count, readable ? PROT_READ : PROT_NONE, readable ? BLOCK_READ_ONLY : BLOCK_GONE);
	if (readable)
		copy_out(self, first, count, before);
	storm_await_at(storm, first, count, 6);
	if (readable)
		copy_out(self, first, count, after);
	if (memcmp(before, after, count * STORM_BLOCK))
		storm_complain(storm, "block %u or one of %u behind it changed while it was read-only", first, count);
	protect(self, first, count, PROT_READ | PROT_WRITE, BLOCK_OPEN);
	storm_await_at(storm, first, count, 4);
	arena_release(&storm->arena, first, count);
	self->effect += storm->tally.refused - refused;
	free(before);
}

const struct disturber disturber_mprotect = {
	.name = "mprotect",
	.what = "rights taken from pages under DMA, and given back",
	.unit = "refused_while_protected",
	.goal = 40,
	.disturb = disturb,
};
