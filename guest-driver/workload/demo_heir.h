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
};

/* Leaves `leave` bytes of free space. */
void heir_fill_up(struct run *run, uint64_t leave);
void heir_release_space(struct run *run);

/* Writes a new file of `bytes`; returns how many blocks it has of those `old` had in that range. */
uint64_t heir_create(struct heir *heir, struct run *run, const struct block_map *old, uint64_t offset,
		     uint64_t bytes);

/* Its bytes must be its own. */
void heir_verify(const struct heir *heir, struct run *run);

/* Once more, and away with it; nothing if there is none. */
void heir_retire(struct heir *heir, struct run *run);

#endif
