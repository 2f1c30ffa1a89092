// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `mremap`: blocks move between two homes. DMA to the address that a block has left must fail if
 * nothing is mapped there, and otherwise land in what is mapped there; the block keeps all that was acknowledged.
 */
#define _GNU_SOURCE
#include "run.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

/* Whether an operation that was in flight when the block moved may have left `word` at the old address. */
static bool strayed(const struct ledger *ledger, uint32_t index, uint32_t place, uint64_t word)
{
	for (uint32_t i = ledger->first_slot[index]; i < ledger->first_slot[index + 1]; i++) {
		const struct slot *slot = &ledger->slots[i];
		uint32_t at = place * 8, version = word_version(word);

		if (at < slot->offset || at >= slot->offset + slot->length)
			continue;
		/* FETCH_ADD changes a counter whatever its value was. */
		return slot->kind == SLOT_COUNTER ||
		       (version >= slot->stray_low && version <= slot->stray_high &&
			word == slot_word(slot, version, (at - slot->offset) / 8));
	}
	return false;
}

/* The old address may hold probes, and what was in flight to the block when it moved; nothing else. */
static void check_decoy(struct disturbance *self, uint32_t index, const char *decoy)
{
	const struct ledger *ledger = &self->storm->arena.ledger;
	const uint64_t *words = (const uint64_t *)decoy;

	self->storm->tally.words_checked += STORM_BLOCK / 8;
	for (uint32_t i = 0; i < STORM_BLOCK / 8; i++) {
		uint64_t word = words[i];

		if (!word || word == word_of(WORD_ID_PROBE, 1, i) || strayed(ledger, index, i, word))
			continue;
		storm_complain(self->storm, "the place that block %u has left has %016" PRIx64 " at word %u", index,
			       word, i);
		return;
	}
}

/*
 * Moves, and leaves behind what `leave` says. A hole is left only when no other disturber maps memory: otherwise a new
 * mapping could be placed there, and the probes would rightly write into it.
 */
static void move(struct disturbance *self, char *from, char *to, enum vacancy leave)
{
	bool hole = leave == VACANT_GONE && self->storm->alone;
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (hole ? 0 : MREMAP_DONTUNMAP);

	if (mremap(from, STORM_BLOCK, STORM_BLOCK, flags, to) != to)
		die("mremap: %s", strerror(errno));
	if (leave == VACANT_GONE && !hole && mprotect(from, STORM_BLOCK, PROT_NONE))
		die("mprotect: %s", strerror(errno));
}

static void disturb(struct disturbance *self)
{
	struct arena *arena = &self->storm->arena;
	uint32_t index = arena_claim_some(arena, 1, &self->rng);
	struct block *block = &arena->ledger.blocks[index];
	char *from = block->address;
	char *to = from == arena_home(arena, index) ? arena_away(arena, index) : arena_home(arena, index);
	enum vacancy leave = rng_below(&self->rng, 2) ? VACANT_GONE : VACANT_DECOY;

	storm_await_at(self->storm, index, 1, 3);
	if (block->vacancy == VACANT_DECOY)
		check_decoy(self, index, to);
	ledger_move(&arena->ledger, index);
	move(self, from, to, leave);
	ledger_moved(&arena->ledger, index, to, leave);
	storm_await_at(self->storm, index, 1, 6);
	arena_release(arena, index, 1);
	self->effect++;
}

const struct disturber disturber_mremap = {
	.name = "mremap",
	.what = "blocks moved to other addresses under DMA",
	.unit = "blocks_moved",
	.goal = 60,
	.disturb = disturb,
};
