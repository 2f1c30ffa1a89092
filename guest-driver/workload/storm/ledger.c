// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "ledger.h"

#include <stdlib.h>
#include <string.h>

#define WORD_TAG	0xa5u		/* no word is zero */
#define PLACES		10		/* slots of an ordinary block */

/* Inside a page, whole pages, and across pages, in and out of step with them. */
static const struct place {
	uint32_t offset, length;
	enum slot_kind kind;
} places[PLACES] = {
	{ 0, 8, SLOT_COUNTER },
	{ 8, 8, SLOT_RECORD },
	{ 64, 448, SLOT_RECORD },
	{ 512, 3584, SLOT_RECORD },
	{ 4096, 4096, SLOT_RECORD },
	{ 8192, 6144, SLOT_RECORD },
	{ 14336, 10232, SLOT_RECORD },
	{ 24568, 16, SLOT_RECORD },
	{ 24584, 8184, SLOT_RECORD },
	{ 32768, 32768, SLOT_RECORD },
};

uint64_t word_of(uint32_t id, uint32_t version, uint32_t index)
{
	return (uint64_t)version << 40 | (uint64_t)id << 24 | (uint64_t)index << 8 | WORD_TAG;
}

uint32_t word_version(uint64_t word)
{
	return (uint32_t)(word >> 40);
}

uint64_t slot_word(const struct slot *slot, uint32_t version, uint32_t index)
{
	return word_of(slot->twin ? WORD_ID_TWIN : slot->index, version, index);
}

void slot_fill(const struct slot *slot, uint32_t version, void *record)
{
	uint64_t *words = record, word = slot_word(slot, version, 0);

	for (uint32_t i = 0; i < slot->length / 8; i++, word += 1 << 8)
		words[i] = word;
}

static uint32_t add_slots(struct ledger *ledger, uint32_t block, uint32_t next)
{
	bool twin = ledger->blocks[block].twin;
	uint32_t count = twin ? STORM_BLOCK / BLOCK : PLACES;

	for (uint32_t i = 0; i < count; i++, next++) {
		const struct place page = { i * (uint32_t)BLOCK, BLOCK, SLOT_RECORD };
		const struct place *place = twin ? &page : &places[i % PLACES];

		ledger->slots[next] = (struct slot){
			.index = next,
			.block = block,
			.offset = place->offset,
			.length = place->length,
			.kind = place->kind,
			.twin = twin,
			.zero = true,
			.low = place->kind == SLOT_COUNTER ? 0 : 1,
		};
	}
	return next;
}

void ledger_init(struct ledger *ledger, uint32_t blocks, uint32_t twins)
{
	uint32_t next = 0;

	*ledger = (struct ledger){
		.block_count = blocks,
		.slot_count = twins * (STORM_BLOCK / BLOCK) + (blocks - twins) * PLACES,
		.blocks = xcalloc(blocks, sizeof(struct block)),
		.first_slot = xcalloc(blocks + 1, sizeof(uint32_t)),
	};
	pthread_mutex_init(&ledger->lock, NULL);
	ledger->slots = xcalloc(ledger->slot_count, sizeof(struct slot));
	for (uint32_t i = 0; i < blocks; i++) {
		ledger->blocks[i].twin = i < twins;
		ledger->first_slot[i] = next;
		next = add_slots(ledger, i, next);
	}
	ledger->first_slot[blocks] = next;
}

void ledger_free(struct ledger *ledger)
{
	pthread_mutex_destroy(&ledger->lock);
	free(ledger->blocks);
	free(ledger->slots);
	free(ledger->first_slot);
}

struct window slot_window(const struct slot *slot)
{
	return (struct window){ .low = slot->low, .high = slot->high, .zero = slot->zero };
}

static bool allowed(const struct slot *slot, const struct window *window, uint64_t word, uint32_t index)
{
	uint32_t version = word_version(word);

	if (slot->kind == SLOT_COUNTER)
		return word >= window->low && word <= window->high;
	if (!word)
		return window->zero;
	return version >= window->low && version <= window->high && word == slot_word(slot, version, index);
}

uint32_t slot_check(const struct slot *slot, const struct window *window, const void *record,
		    struct mismatch *bad)
{
	const uint64_t *words = record;
	uint32_t wrong = 0;

	for (uint32_t i = 0; i < slot->length / 8; i++) {
		if (allowed(slot, window, words[i], i))
			continue;
		if (!wrong++)
			*bad = (struct mismatch){ .word = i, .found = words[i] };
	}
	return wrong;
}

void slot_begin_write(struct slot *slot, uint32_t version)
{
	slot->before = slot->high;
	slot->high = version;
	slot->writing = slot->moved = true;
}

void slot_written(struct slot *slot, bool replaced)
{
	slot->low = slot->high;
	slot->zero = replaced;
	slot->writing = false;
}

void slot_torn(struct slot *slot)
{
	slot->writing = false;
}

void slot_untouched(struct slot *slot)
{
	slot->high = slot->before;
	slot->writing = false;
}

bool slot_added(struct slot *slot, uint64_t old, bool replaced)
{
	bool possible = old <= slot->before && (replaced || old >= slot->low);

	slot->writing = false;
	if (!possible)
		return false;
	slot->high = (uint32_t)old + 1;
	slot->low = replaced ? 0 : slot->high;
	return true;
}

void ledger_replace(struct ledger *ledger, uint32_t first, uint32_t count)
{
	ledger_lock(ledger);
	for (uint32_t i = first; i < first + count; i++) {
		ledger->blocks[i].replacing = true;
		ledger->blocks[i].replaced++;
	}
	for (uint32_t i = ledger->first_slot[first]; i < ledger->first_slot[first + count]; i++) {
		struct slot *slot = &ledger->slots[i];

		slot->zero = true;
		if (slot->kind == SLOT_COUNTER)
			slot->low = 0;
		/* A write that has ended by now cannot outlive the replacement. */
		slot->moved = slot->writing;
		slot->floor = slot->writing ? slot->before : slot->high;
	}
	ledger_unlock(ledger);
}

void ledger_replaced(struct ledger *ledger, uint32_t first, uint32_t count)
{
	ledger_lock(ledger);
	for (uint32_t i = first; i < first + count; i++)
		ledger->blocks[i].replacing = false;
	for (uint32_t i = ledger->first_slot[first]; i < ledger->first_slot[first + count]; i++) {
		struct slot *slot = &ledger->slots[i];

		if (slot->kind == SLOT_RECORD && slot->low <= slot->floor)
			slot->low = slot->floor + 1;
		if (slot->kind == SLOT_COUNTER && !slot->moved)
			slot->high = 0;
	}
	ledger_unlock(ledger);
}

static void set_state(struct block *block, enum block_state state)
{
	block->state = state;
	block->epoch++;
}

void ledger_move(struct ledger *ledger, uint32_t index)
{
	struct block *block = &ledger->blocks[index];

	ledger_lock(ledger);
	set_state(block, BLOCK_CHANGING);
	/* If the block came back to its old address now, a probe would rightly land in it. */
	while (block->probes) {
		ledger_unlock(ledger);
		sleep_ms(1);
		ledger_lock(ledger);
	}
	block->moves++;
	for (uint32_t i = ledger->first_slot[index]; i < ledger->first_slot[index + 1]; i++) {
		struct slot *slot = &ledger->slots[i];

		slot->stray_low = slot->writing ? slot->before + 1 : slot->high + 1;
	}
	ledger_unlock(ledger);
}

void ledger_moved(struct ledger *ledger, uint32_t index, char *address, enum vacancy leave)
{
	struct block *block = &ledger->blocks[index];

	ledger_lock(ledger);
	for (uint32_t i = ledger->first_slot[index]; i < ledger->first_slot[index + 1]; i++)
		ledger->slots[i].stray_high = ledger->slots[i].high;
	block->vacant = block->address;
	block->vacancy = leave;
	block->address = address;
	block->moves++;
	set_state(block, BLOCK_OPEN);
	ledger_unlock(ledger);
}

void ledger_set_state(struct ledger *ledger, uint32_t first, uint32_t count, enum block_state state)
{
	ledger_lock(ledger);
	for (uint32_t i = first; i < first + count; i++)
		set_state(&ledger->blocks[i], state);
	ledger_unlock(ledger);
}
