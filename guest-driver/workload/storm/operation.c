// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "operation.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/verbs.h"

#define COMPLAINTS	10	/* that are spelled out */

const char *operation_name(const struct operation *op)
{
	static const char *const names[] = { "write", "read", "compare-swap", "fetch-add" };

	return names[op->verb];
}

const char *block_state_name(enum block_state state)
{
	static const char *const names[] = { "open", "changing", "read-only", "gone" };

	return names[state];
}

void traffic_complain(struct tally *tally, const char *format, ...)
{
	va_list args;

	if (tally->unexpected++ >= COMPLAINTS)
		return;
	fputs("  wrong: ", stdout);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

void operation_check_slot(struct tally *tally, const struct slot *slot, const struct window *window,
			  const void *record, const char *how)
{
	struct mismatch bad;
	uint32_t wrong = slot_check(slot, window, record, &bad);

	tally->words_checked += slot->length / 8;
	if (!wrong)
		return;
	tally->words_wrong += wrong;
	traffic_complain(tally, "%s: %u words of slot %u (block %u, offset %u, %u bytes), the first at %u: found %016"
			 PRIx64 " (version %u), allowed [%u, %u]%s", how, wrong, slot->index, slot->block,
			 slot->offset, slot->length, bad.word, bad.found, word_version(bad.found), window->low,
			 window->high, window->zero ? " or zero" : "");
}

/* Whether the block's content was, or may have been, replaced while the operation was in flight. */
static bool overlapped(const struct operation *op)
{
	return op->replacing || op->block->replacing || op->replaced != op->block->replaced;
}

static bool writes(const struct operation *op)
{
	return op->verb != VERB_READ;
}

static void take_swap(struct tally *tally, const struct operation *op, uint64_t old)
{
	struct slot *slot = op->slot;

	if (old == op->compare) {
		slot_written(slot, overlapped(op));
		return;
	}
	/* It was zeros already when it was compared: there is no other writer. */
	slot_untouched(slot);
	if (old || !overlapped(op))
		traffic_complain(tally, "compare-swap of slot %u: found %016" PRIx64 ", not %016" PRIx64,
				 slot->index, old, op->compare);
}

static void take_success(struct tally *tally, const struct operation *op)
{
	struct slot *slot = op->slot;
	struct window window = op->window;
	uint64_t old;

	/* It may have accessed what is at the old address now, wholly or in part: nothing is known of the slot. */
	if (op->moves != op->block->moves || op->moves % 2) {
		if (writes(op))
			slot_torn(slot);
		return;
	}
	memcpy(&old, op->buffer, 8);
	switch (op->verb) {
	case VERB_WRITE:
		tally->writes++;
		slot_written(slot, overlapped(op));
		break;
	case VERB_READ:
		tally->reads++;
		if (overlapped(op) && slot->kind == SLOT_COUNTER)
			window.low = 0;
		window.zero |= overlapped(op);
		operation_check_slot(tally, slot, &window, op->buffer, "read");
		break;
	case VERB_SWAP:
		tally->atomics++;
		take_swap(tally, op, old);
		break;
	case VERB_ADD:
		tally->atomics++;
		if (!slot_added(slot, old, overlapped(op)))
			traffic_complain(tally, "fetch-add to slot %u: found %" PRIu64 ", not in [%u, %u]",
					 slot->index, old, window.low, window.high);
		break;
	}
}

/* Whether the outcome is the one that the block's state requires, if the state did not change. */
static bool outcome_right(const struct operation *op, enum storm_status status)
{
	enum block_state state = op->state;
	bool refusal;

	if (op->epoch != op->block->epoch || state == BLOCK_CHANGING)
		return true;
	if (op->slot)
		refusal = state == BLOCK_GONE || (state == BLOCK_READ_ONLY && writes(op));
	else
		refusal = op->block->vacancy == VACANT_GONE;
	return refusal == (status == STATUS_REFUSED);
}

static void take_failure(struct tally *tally, const struct operation *op, const struct storm_result *result,
			 bool behind_failure)
{
	bool steady = op->epoch == op->block->epoch && op->state != BLOCK_CHANGING;
	bool flushed = result->status == STATUS_FLUSHED;

	if (result->status == STATUS_WRONG)
		traffic_complain(tally, "%s at %p (%s): %s, vendor error %u", operation_name(op), (void *)op->target,
				 block_state_name(op->state), result->text, result->vendor);
	else if (flushed != behind_failure)
		traffic_complain(tally, "%s at %p: %s, %s", operation_name(op), (void *)op->target, result->text,
				 behind_failure ? "behind a failed one" : "with none failed before");
	*(flushed ? &tally->flushed : &tally->refused) += 1;
	if (!op->slot || !writes(op))
		return;
	/* A READ before it may have been repeated, and refused, when this one was done already. */
	if ((flushed || steady) && !verbs_link_loses())
		slot_untouched(op->slot);
	else
		slot_torn(op->slot);
}

static void check_outcome(struct tally *tally, const struct operation *op, const struct storm_result *result)
{
	bool done = result->status == STATUS_DONE;

	if ((done || result->status == STATUS_REFUSED) && !outcome_right(op, result->status))
		traffic_complain(tally, "%s at %p %s, but the block was %s%s: %s", operation_name(op),
				 (void *)op->target, done ? "succeeded" : "failed", block_state_name(op->state),
				 op->slot ? "" : " elsewhere", result->text);
}

void operation_end(struct tally *tally, struct operation *op, const struct storm_result *result,
		   bool behind_failure)
{
	check_outcome(tally, op, result);
	if (result->status != STATUS_DONE)
		take_failure(tally, op, result, behind_failure);
	else if (op->slot)
		take_success(tally, op);
	else
		tally->probes++;
	if (op->slot)
		op->slot->busy = false;
	else
		op->block->probes--;
	op->block->operations++;
}
