/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A second file that takes the blocks which the first has given up. The filesystem is filled up beforehand, so that
 * few other blocks are free; the extent maps say how many it took.
 */
#ifndef DEMO_SUCCESSOR_H
#define DEMO_SUCCESSOR_H

#include "run.h"

struct successor {
	int fd;			/* -1: none */
	uint64_t bytes;
	uint64_t seed;
	struct block_set former;	/* where the file's blocks have ever been */
	uint64_t inherited;	/* blocks that all successors together took over */
};

/* Leaves `leave` bytes of free space, and sets `reserve` bytes aside. */
void successor_fill_up(struct run *run, uint64_t leave, uint64_t reserve);

/* Frees the reserve, or takes it again. */
void successor_lend_reserve(struct run *run);
void successor_take_reserve(struct run *run, uint64_t reserve);

/* Before the file gives up blocks: notes where they are. */
void successor_note_blocks(struct successor *successor, struct run *run);

/* Writes a new file of `bytes`, and counts the blocks it took over. */
void successor_create(struct successor *successor, struct run *run, uint64_t bytes);

/* Fails the run if its bytes changed; does nothing if there is no successor. */
void successor_verify(const struct successor *successor, struct run *run);

/* Verifies and removes it; does nothing if there is no successor. */
void successor_retire(struct successor *successor, struct run *run);

/* Retires the last successor and frees the rest of the space. */
void successor_finish(struct successor *successor, struct run *run);

#endif
