// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "operation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_BYTES	STORM_BLOCK	/* of each operation, in the scratch memory */
#define BATCH		16

_Static_assert(LANES * LANE_DEPTH * BUFFER_BYTES <= SCRATCH_BYTES, "room for the buffers");

struct lane {
	struct operation operations[LANE_DEPTH];
	uint32_t in_flight;
	bool failed;
};

struct traffic {
	struct arena *arena;
	struct storm_engine *engine;
	struct tally *tally;
	struct rng rng;
	struct lane lanes[LANES];
	_Atomic uint32_t twin_round;
	_Atomic bool stopping;
	pthread_t thread;
};

/* Half of the time a slot where a disturber is at work, otherwise any slot. */
static struct slot *pick_slot(struct traffic *traffic)
{
	struct ledger *ledger = &traffic->arena->ledger;
	uint64_t focus = traffic->arena->foci[rng_below(&traffic->rng, MAX_FOCI)];
	uint32_t first = (uint32_t)focus, count = (uint32_t)(focus >> 32);
	uint32_t block;

	for (uint32_t i = 0; i < MAX_FOCI && !count; i++) {
		focus = traffic->arena->foci[i];
		first = (uint32_t)focus;
		count = (uint32_t)(focus >> 32);
	}
	if (!count || rng_below(&traffic->rng, 2)) {
		first = 0;
		count = ledger->block_count;
	}
	block = first + (uint32_t)rng_below(&traffic->rng, count);
	first = ledger->first_slot[block];
	return &ledger->slots[first + rng_below(&traffic->rng, ledger->first_slot[block + 1] - first)];
}

static uint32_t next_version(struct traffic *traffic, const struct slot *slot)
{
	uint32_t round = traffic->twin_round;

	if (!slot->twin)
		return slot->high + 1;
	return round > slot->high ? round : 0;
}

/* The processor's own load or store, as part of the traffic. */
static void by_processor(struct traffic *traffic, const struct block *block, struct slot *slot, bool store)
{
	uint64_t record[STORM_BLOCK / 8];
	uint32_t version = store ? next_version(traffic, slot) : 0;
	struct window window = slot_window(slot);
	char *address = block->address + slot->offset;

	memcpy(record, address, slot->length);
	operation_check_slot(traffic->tally, slot, &window, record, "by the processor");
	traffic->tally->cpu++;
	if (!version || slot->kind == SLOT_COUNTER)
		return;
	slot_fill(slot, version, record);
	memcpy(address, record, slot->length);
	slot_begin_write(slot, version);
	slot_written(slot, false);
}

/* Whether the slot's content is known exactly, so that a compare-swap can name it. */
static bool known_word(const struct slot *slot, uint64_t *word)
{
	if (slot->low == slot->high && !slot->zero)
		*word = slot_word(slot, slot->low, 0);
	else if (slot->low > slot->high && slot->zero)
		*word = 0;
	else
		return false;
	return true;
}

static enum storm_verb choose_verb(struct traffic *traffic, const struct block *block, const struct slot *slot,
				   uint64_t *compare)
{
	bool read = rng_below(&traffic->rng, 5) < 2;

	if (read || (slot->twin && !next_version(traffic, slot)))
		return VERB_READ;
	if (slot->kind == SLOT_COUNTER)
		return VERB_ADD;
	if (slot->length == 8 && !block->replacing && known_word(slot, compare))
		return VERB_SWAP;
	return VERB_WRITE;
}

static void prepare(struct traffic *traffic, struct operation *op, struct storm_request *request)
{
	struct slot *slot = op->slot;
	uint32_t version = next_version(traffic, slot);

	op->verb = request->verb = choose_verb(traffic, op->block, slot, &op->compare);
	op->window = slot_window(slot);
	op->target = op->block->address + slot->offset;
	request->length = slot->length;
	request->compare = op->compare;
	slot->busy = true;
	switch (op->verb) {
	case VERB_WRITE:
		slot_fill(slot, version, op->buffer);
		break;
	case VERB_READ:
		/* What is left in the buffer must not look like what is read. */
		memset(op->buffer, 0xee, slot->length);
		return;
	case VERB_SWAP:
		request->swap = slot_word(slot, version, 0);
		break;
	case VERB_ADD:
		request->swap = 1;
		break;
	}
	slot_begin_write(slot, version);
}

/* 512 bytes to a page of the block's old address: they must not land in the block, wherever it is now. */
static void prepare_probe(struct traffic *traffic, struct operation *op, struct storm_request *request)
{
	uint32_t at = (uint32_t)rng_below(&traffic->rng, STORM_BLOCK / BLOCK) * (uint32_t)BLOCK;
	uint64_t *words = (uint64_t *)op->buffer;

	op->block->probes++;
	op->verb = request->verb = VERB_WRITE;
	op->target = op->block->vacant + at;
	request->length = 512;
	for (uint32_t i = 0; i < request->length / 8; i++)
		words[i] = word_of(WORD_ID_PROBE, 1, at / 8 + i);
}

/* Blocks that refuse would otherwise keep every lane in recovery. */
static bool worth_it(struct traffic *traffic, const struct block *block)
{
	return block->state == BLOCK_OPEN || !rng_below(&traffic->rng, 3);
}

/* Under the ledger's lock. False if there is nothing to post now. */
static bool choose(struct traffic *traffic, struct operation *op, struct storm_request *request)
{
	struct slot *slot = pick_slot(traffic);
	struct block *block = &traffic->arena->ledger.blocks[slot->block];
	uint64_t dice = rng_below(&traffic->rng, 16);
	bool probe = block->vacancy != VACANT_NONE && block->state != BLOCK_CHANGING &&
		     !rng_below(&traffic->rng, 8);

	if (!probe && (slot->busy || !worth_it(traffic, block)))
		return false;
	if (!probe && dice < 3 && block->state == BLOCK_OPEN && !block->replacing) {
		by_processor(traffic, block, slot, dice == 0);
		return false;
	}
	op->block = block;
	op->slot = probe ? NULL : slot;
	op->state = block->state;
	op->epoch = block->epoch;
	op->replaced = block->replaced;
	op->moves = block->moves;
	op->replacing = block->replacing;
	if (probe)
		prepare_probe(traffic, op, request);
	else
		prepare(traffic, op, request);
	return true;
}

static bool post_one(struct traffic *traffic, uint32_t number)
{
	struct lane *lane = &traffic->lanes[number];
	struct operation *op = NULL;
	struct storm_request request = { .lane = number };
	bool chosen;

	for (uint32_t i = 0; i < LANE_DEPTH && !op; i++)
		op = lane->operations[i].in_flight ? NULL : &lane->operations[i];
	if (!op)
		return false;
	ledger_lock(&traffic->arena->ledger);
	chosen = choose(traffic, op, &request);
	ledger_unlock(&traffic->arena->ledger);
	if (!chosen)
		return false;
	op->in_flight = true;
	op->posted_ns = now_ns();
	lane->in_flight++;
	request.local = op->buffer;
	request.remote = op->target;
	request.whole = rng_below(&traffic->rng, 2);
	request.tag = number * LANE_DEPTH + (uint64_t)(op - lane->operations);
	traffic->engine->post(traffic->engine, &request);
	return true;
}

static void take_result(struct traffic *traffic, const struct storm_result *result)
{
	struct lane *lane = &traffic->lanes[result->tag / LANE_DEPTH];
	struct operation *op = &lane->operations[result->tag % LANE_DEPTH];

	ledger_lock(&traffic->arena->ledger);
	operation_end(traffic->tally, op, result, lane->failed);
	ledger_unlock(&traffic->arena->ledger);
	lane->failed |= result->status != STATUS_DONE;
	op->in_flight = false;
	lane->in_flight--;
	traffic->tally->completed++;
}

static void recover(struct traffic *traffic, uint32_t number)
{
	struct lane *lane = &traffic->lanes[number];

	if (!lane->failed || lane->in_flight)
		return;
	if (!traffic->engine->failed(traffic->engine, number))
		traffic_complain(traffic->tally, "lane %u is not in the error state after a failure", number);
	if (!traffic->engine->recover(traffic->engine, number))
		die("lane %u could not be recovered", number);
	lane->failed = false;
}

static bool step(struct traffic *traffic)
{
	struct storm_result results[BATCH];
	uint32_t count, in_flight = 0;
	bool posted = false;

	for (uint32_t i = 0; i < LANES; i++)
		if (!traffic->lanes[i].failed && !traffic->stopping)
			posted |= post_one(traffic, i);
	count = traffic->engine->poll(traffic->engine, results, BATCH, posted ? 0 : 1);
	for (uint32_t i = 0; i < count; i++)
		take_result(traffic, &results[i]);
	for (uint32_t i = 0; i < LANES; i++) {
		recover(traffic, i);
		in_flight += traffic->lanes[i].in_flight;
	}
	return in_flight || !traffic->stopping;
}

static void *traffic_main(void *argument)
{
	while (step(argument))
		;
	return NULL;
}

struct traffic *traffic_start(struct arena *arena, struct storm_engine *engine, struct tally *tally,
			      uint64_t seed)
{
	struct traffic *traffic = xcalloc(1, sizeof(*traffic));
	char *next = arena->scratch;

	*traffic = (struct traffic){ .arena = arena, .engine = engine, .tally = tally, .rng.state = seed };
	traffic->twin_round = 1;
	for (uint32_t lane = 0; lane < LANES; lane++)
		for (uint32_t i = 0; i < LANE_DEPTH; i++, next += BUFFER_BYTES)
			traffic->lanes[lane].operations[i].buffer = next;
	if (pthread_create(&traffic->thread, NULL, traffic_main, traffic))
		die("cannot start a thread");
	return traffic;
}

void traffic_stop(struct traffic *traffic)
{
	traffic->stopping = true;
	pthread_join(traffic->thread, NULL);
	free(traffic);
}

void traffic_set_twin_round(struct traffic *traffic, uint32_t round)
{
	traffic->twin_round = round;
}

void traffic_check_all(struct arena *arena, struct tally *tally)
{
	const struct ledger *ledger = &arena->ledger;

	for (uint32_t i = 0; i < ledger->slot_count; i++) {
		const struct slot *slot = &ledger->slots[i];
		const struct block *block = &ledger->blocks[slot->block];
		struct window window = slot_window(slot);

		if (block->state == BLOCK_OPEN)
			operation_check_slot(tally, slot, &window, block->address + slot->offset, "at the end");
	}
}

void traffic_describe(struct traffic *traffic)
{
	for (uint32_t lane = 0; lane < LANES; lane++)
		for (uint32_t i = 0; i < LANE_DEPTH; i++) {
			const struct operation *op = &traffic->lanes[lane].operations[i];

			if (op->in_flight)
				printf("  lane %u%s: %s at %p for %.1f s; its block was %s, is %s\n", lane,
				       traffic->lanes[lane].failed ? " (failed)" : "", operation_name(op),
				       (void *)op->target, seconds_since(op->posted_ns), block_state_name(op->state),
				       block_state_name(op->block->state));
		}
}
