/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The continuous traffic: one thread keeps every lane busy with writes, reads and atomics at random slots, mixed
 * with loads and stores of the processor, and checks each result against the ledger.
 */
#ifndef STORM_TRAFFIC_H
#define STORM_TRAFFIC_H

#include "arena.h"
#include "engine.h"

struct tally {
	_Atomic uint64_t writes, reads, atomics, probes;	/* that succeeded */
	_Atomic uint64_t cpu;			/* slots that the processor stored to or read */
	_Atomic uint64_t refused, flushed;	/* where the ledger allows it */
	_Atomic uint64_t unexpected;		/* outcomes that the ledger rules out */
	_Atomic uint64_t words_checked, words_wrong;
	_Atomic uint64_t completed;		/* whatever the outcome: shows that the traffic is alive */
};

struct traffic;

struct traffic *traffic_start(struct arena *arena, struct storm_engine *engine, struct tally *tally,
			      uint64_t seed);

/* Posts nothing more, waits for what is in flight, and ends the thread. */
void traffic_stop(struct traffic *traffic);

/* Twin slots are written with this version, if it is above theirs, so that their pages become equal. */
void traffic_set_twin_round(struct traffic *traffic, uint32_t round);

/* Checks all slots of open blocks; nothing may be in flight. */
void traffic_check_all(struct arena *arena, struct tally *tally);

/* Prints what is wrong, the first few times. */
void traffic_complain(struct tally *tally, const char *format, ...) PRINTF(2, 3);

/* Prints what is in flight, for a storm that is stuck. */
void traffic_describe(struct traffic *traffic);

#endif
