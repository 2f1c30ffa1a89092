/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* One operation of the traffic: what was known when it was posted, and what its completion adds. */
#ifndef STORM_OPERATION_H
#define STORM_OPERATION_H

#include "traffic.h"

struct operation {
	bool in_flight;
	enum storm_verb verb;
	struct block *block;
	struct slot *slot;		/* NULL: a probe */
	enum block_state state;		/* of the block when it was posted */
	uint32_t epoch, replaced, moves;
	bool replacing;
	struct window window;		/* of the slot, then */
	uint64_t compare;
	char *target;
	char *buffer;
	uint64_t posted_ns;
};

const char *operation_name(const struct operation *op);
const char *block_state_name(enum block_state state);

/*
 * Checks the outcome against the ledger, whose lock is held, and records it there. `behind_failure`: an earlier
 * operation of its lane has failed.
 */
void operation_end(struct tally *tally, struct operation *op, const struct storm_result *result,
		   bool behind_failure);

/* Checks a slot's content, however it was read, against what it may be. */
void operation_check_slot(struct tally *tally, const struct slot *slot, const struct window *window,
			  const void *record, const char *how);

#endif
