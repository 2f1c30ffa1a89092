/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The next owner of blocks that the file has given up. The filesystem is filled up beforehand, so that the
 * freed blocks are among the few that a new file can get; how many it really got, the extent maps say.
 */
#ifndef DEMO_HEIR_H
#define DEMO_HEIR_H

#include "demo_run.h"

struct heir {
	int fd;			/* -1: none */
	uint64_t bytes;
	uint64_t seed;
	struct block_set former;	/* where the file's blocks have ever been */
	uint64_t inherited;	/* blocks that went from the file to an heir, over all heirs */
};

/* Leaves `leave` bytes of free space, and sets `reserve` bytes aside. */
void heir_fill_up(struct run *run, uint64_t leave, uint64_t reserve);

/* Makes what was set aside free, or sets it aside again. */
void heir_lend_reserve(struct run *run);
void heir_take_reserve(struct run *run, uint64_t reserve);

/* Before the file gives up blocks: notes where they are. */
void heir_note_blocks(struct heir *heir, struct run *run);

/* Writes a new file of `bytes`, and counts the blocks that it took over. */
void heir_create(struct heir *heir, struct run *run, uint64_t bytes);

/* Its bytes must be its own; nothing if there is none. */
void heir_verify(const struct heir *heir, struct run *run);

/* Once more, and away with it; nothing if there is none. */
void heir_retire(struct heir *heir, struct run *run);

/* The last of all heirs. */
void heir_finish(struct heir *heir, struct run *run);

#endif
