/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The continuous stream of writes: one thread keeps every queue pair busy with records into its own slots,
 * and keeps the ledger. At most one write to a slot is in flight.
 */
#ifndef DEMO_STREAM_H
#define DEMO_STREAM_H

#include "engine.h"
#include "ledger.h"

#define MAX_QPS		16
#define MAX_DEPTH	64

/* Counters that the report shows; shared with forked children. */
struct counters {
	_Atomic uint64_t writes;		/* acknowledged */
	_Atomic uint64_t bytes_written;
	_Atomic uint64_t operations;
	_Atomic uint64_t blocks_moved;
	_Atomic uint64_t bytes_verified;
	_Atomic uint64_t bytes_wrong;
	_Atomic uint64_t refused;		/* remote access errors */
	/* Mappings written for the first time since the epoch began: each takes at least one fault. */
	_Atomic uint64_t touches;
	_Atomic uint64_t acked[MAX_QPS];
	_Atomic uint64_t failed[MAX_QPS];	/* completions with an error, flushed ones included */
	_Atomic uint64_t recoveries[MAX_QPS];
};

struct stream_config {
	struct engine *engine;
	struct ledger *ledger;
	struct counters *counters;
	char *target;			/* where the file is mapped */
	void *source;			/* stream_source_bytes() of memory */
	uint32_t depth;
	uint64_t touch_unit;		/* bytes that a fault makes present at first: 4 KiB or 2 MiB */
	bool loses;			/* answers, too: a write that was refused may be unanswered */
	bool flush;			/* a record is acknowledged when it is durable */
	uint64_t seed;
};

struct stream;

/* Bytes of memory in which records are built before they are sent. */
size_t stream_source_bytes(uint32_t qps, uint32_t depth);

struct stream *stream_start(const struct stream_config *config);

/* Waits for what is in flight, then stops and frees. False, with nothing freed, if that never completes. */
bool stream_stop(struct stream *stream);

/* Posts nothing more and waits for what is in flight; false if that never completes. */
bool stream_pause(struct stream *stream);
void stream_resume(struct stream *stream);

/*
 * Whether remote access errors of `qp` are expected. If so, they are counted, and the queue pair is recovered and
 * continues. Otherwise any error completion breaks the stream.
 */
void stream_expect_refusals(struct stream *stream, uint32_t qp, bool expected);

/* As stream_pause(), for one queue pair. */
bool stream_mute(struct stream *stream, uint32_t qp);
void stream_unmute(struct stream *stream, uint32_t qp);

/* A new epoch for counters.touches: all mappings are gone or write-protected. */
void stream_new_epoch(struct stream *stream);

/* From the next epoch on, mappings have this size. */
void stream_set_touch_unit(struct stream *stream, uint64_t bytes);

/* Why the stream is broken, or NULL. */
const char *stream_broken(const struct stream *stream);

#endif
