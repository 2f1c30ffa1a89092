/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What is known about every slot, and what a reader may therefore find there.
 *
 * The stream keeps at most one write to a slot in flight. It counts `posted` up before it posts, and sets
 * `acked` after it has seen the write's successful completion. Hence, while no filesystem operation is in progress:
 *
 *   - Between writes the slot holds version `acked`, every byte of it.
 *   - With a write in flight, or after one that failed, every aligned 8-byte word is of a version in
 *     [acked, posted]. The device copies a record in pieces whose order is its own, so nothing more can be
 *     said; and only acknowledged bytes are counted as promised.
 *
 * An operation of the filesystem that replaces the content of a range (punch, exchange, truncate and
 * extend) takes effect at an instant between its call and its return, which may differ for each page of a
 * record. Let A be `acked` before the call and P be `posted` after the return. Writes up to A landed in the
 * old content, writes after P land in the new one, and a write between lands, page by page, in either. So
 * until a write posted after P is acknowledged, every word is of the new base content or of (A, P].
 * ledger_replace() records that.
 *
 * A reflink copy, or the twin of an exchange, is the file as it was at such instants: its words are of what
 * the file could hold before the call, or of a version up to P. A moment keeps that.
 */
#ifndef DEMO_LEDGER_H
#define DEMO_LEDGER_H

#include "layout.h"

#include <stdatomic.h>

struct ledger {
	const struct layout *layout;
	uint64_t run;
	/* Written by the stream, shared with forked children. */
	_Atomic uint64_t *posted;
	_Atomic uint64_t *acked;
	/* Written by the thread that runs the scenario. */
	version_t *base;
	version_t *low;		/* first version that may be there beside the base */
	version_t *barrier;	/* an acknowledged version above it ends the base */
};

/* What a range of the file held at the instants of one operation: the windows of its slots. */
struct moment {
	uint64_t offset, length;
	uint32_t first;		/* slot */
	uint32_t count;
	struct window *windows;
	version_t *acked;	/* before the operation */
};

/* Every slot begins with `base` and no version of the stream. */
void ledger_init(struct ledger *ledger, const struct layout *layout, uint64_t run, version_t base);
void ledger_free(struct ledger *ledger);

/* What the file's slot may hold now. Exact once the stream is drained. */
struct window ledger_window(const struct ledger *ledger, uint32_t slot);

/* Before the operation: notes what [offset, offset + length) may hold. Slots across an edge are left out. */
void moment_begin(struct moment *moment, const struct ledger *ledger, uint64_t offset, uint64_t length);

/* After it: widens by what was posted meanwhile. */
void moment_end(struct moment *moment, const struct ledger *ledger);
void moment_free(struct moment *moment);

/*
 * After an operation that began at `moment`: the file's slots of that range now hold `base`, or what was
 * written later. A slot across an edge of the range must not exist.
 */
void ledger_replace(struct ledger *ledger, const struct moment *moment, version_t base);

/* The same if nothing was in flight when the operation ended: the slots hold exactly `base`. */
void ledger_reset(struct ledger *ledger, const struct moment *moment, version_t base);

#endif
