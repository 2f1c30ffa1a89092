/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What every byte of the arena may hold.
 *
 * The arena is a row of blocks of 64 KiB; a block has slots, which begin and end anywhere in it. A slot holds a
 * record of one version: every 8-byte word names the slot, its own place and the version. At most one operation
 * on a slot is in flight, and a version is counted in `high` before it is posted. So at any time a word of the
 * slot is of a version in [low, high], or zero if `zero` says so:
 *
 *   - A write of version v that succeeded leaves exactly v.
 *   - A write in flight, or one that failed when it might have begun, leaves some words of v, some of before.
 *   - A write that was flushed, or had to fail, leaves nothing of v.
 *   - A replacement (MADV_DONTNEED, a new mapping, a truncation) turns each page to zeros at an instant of its own
 *     between ledger_replace() and ledger_replaced(). Versions whose operation had ended before the first are
 *     gone after the second: [low, high] shrinks to what was in flight meanwhile.
 *
 * What a disturber does to the accesses themselves is the block's state; see there. Everything here happens under
 * the ledger's lock.
 */
#ifndef STORM_LEDGER_H
#define STORM_LEDGER_H

#include "common/util.h"

#include <pthread.h>

#define STORM_BLOCK	(64 * KIB)

#define WORD_ID_TWIN	0xffffu		/* in all slots of a twin block: their pages may be equal */
#define WORD_ID_PROBE	0xfffeu		/* written to where a block no longer is */
#define WORD_ID_SUCCESSOR	0xfffdu		/* pages that have another owner now */
#define WORD_ID_CHILD	0xfffcu		/* scribbled by a forked child */

enum slot_kind {
	SLOT_RECORD,
	SLOT_COUNTER,		/* 8 bytes, FETCH_ADD of one: `low` and `high` bound the value itself */
};

struct slot {
	uint32_t index;
	uint32_t block;
	uint32_t offset;	/* in the block */
	uint32_t length;
	enum slot_kind kind;
	bool twin;
	bool busy;		/* an operation is in flight */
	bool writing;		/* and it is one that writes */
	bool moved;		/* a write was in flight since the last replacement began */
	bool zero;
	uint32_t low, high;
	uint32_t before;	/* `high` before the write in flight */
	/* Versions that may have gone to where the block was before: posted by then, and not over. */
	uint32_t stray_low, stray_high;
	uint32_t floor;		/* `high` of what had ended when the last replacement began */
};

/*
 * Whether accesses to a block succeed. An operation whose block kept epoch and state from posting to completion
 * has the outcome that the state says; any other may succeed or fail.
 */
enum block_state {
	BLOCK_OPEN,		/* reads and writes succeed */
	BLOCK_CHANGING,		/* either outcome is allowed */
	BLOCK_READ_ONLY,	/* reads succeed, writes fail and write nothing */
	BLOCK_GONE,		/* everything fails */
};

/* What is at an address that a block has left. */
enum vacancy {
	VACANT_NONE,		/* nothing to say */
	VACANT_GONE,		/* no memory: accesses fail */
	VACANT_DECOY,		/* other memory: writes land there, and only there */
};

struct block {
	enum block_state state;
	uint32_t epoch;		/* of the state */
	uint32_t replaced;	/* replacements that began */
	uint32_t moves;		/* counts begin and end of each move: odd meanwhile */
	uint32_t probes;	/* in flight */
	bool replacing;
	bool claimed;		/* by a disturber */
	bool twin;
	enum vacancy vacancy;
	char *address;
	char *vacant;		/* where it was before, if `vacancy` */
	uint64_t operations;	/* that completed */
};

struct ledger {
	pthread_mutex_t lock;
	uint32_t block_count, slot_count;
	struct block *blocks;
	struct slot *slots;
	uint32_t *first_slot;	/* of each block; one more than blocks */
};

/* What a reader may find in a slot. */
struct window {
	uint32_t low, high;
	bool zero;
};

struct mismatch {
	uint32_t word;
	uint64_t found;
};

/* Blocks without slots yet; `twins` of them, from the first on, are twin blocks. */
void ledger_init(struct ledger *ledger, uint32_t blocks, uint32_t twins);
void ledger_free(struct ledger *ledger);

static inline void ledger_lock(struct ledger *ledger)
{
	pthread_mutex_lock(&ledger->lock);
}

static inline void ledger_unlock(struct ledger *ledger)
{
	pthread_mutex_unlock(&ledger->lock);
}

/* Word `index` of a record. */
uint64_t word_of(uint32_t id, uint32_t version, uint32_t index);
uint32_t word_version(uint64_t word);
uint64_t slot_word(const struct slot *slot, uint32_t version, uint32_t index);
void slot_fill(const struct slot *slot, uint32_t version, void *record);

/* How many words of the record no window allows; the first of them in *bad. */
uint32_t slot_check(const struct slot *slot, const struct window *window, const void *record,
		    struct mismatch *bad);
struct window slot_window(const struct slot *slot);

/* A writing operation: begun with the version it may leave, then its end. */
void slot_begin_write(struct slot *slot, uint32_t version);
void slot_written(struct slot *slot, bool replaced);	/* every byte of it */
void slot_torn(struct slot *slot);			/* any part of it */
void slot_untouched(struct slot *slot);			/* nothing of it */

/* A counter was added to, and had held `old`; false if it cannot have. */
bool slot_added(struct slot *slot, uint64_t old, bool replaced);

/* Disturbers, with blocks [first, first + count) claimed. These take the lock. */
void ledger_replace(struct ledger *ledger, uint32_t first, uint32_t count);
void ledger_replaced(struct ledger *ledger, uint32_t first, uint32_t count);
void ledger_set_state(struct ledger *ledger, uint32_t first, uint32_t count, enum block_state state);

/* A block's address changes: from CHANGING, when no probe is in flight, to OPEN at the new one. */
void ledger_move(struct ledger *ledger, uint32_t index);
void ledger_moved(struct ledger *ledger, uint32_t index, char *address, enum vacancy leave);

#endif
