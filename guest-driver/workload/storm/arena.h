/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The memory that the storms work on: anonymous memory with room to move to, and, if wanted, a file on persistent
 * memory. Its blocks, in this order, are the ledger's.
 */
#ifndef STORM_ARENA_H
#define STORM_ARENA_H

#include "common/fs.h"
#include "ledger.h"

#define ANON_BYTES	(8 * MIB)
#define ANON_BLOCKS	((uint32_t)(ANON_BYTES / STORM_BLOCK))
#define TWIN_BLOCKS	16u		/* the first ones */
#define FILE_BYTES	(4 * MIB)
#define FILE_BLOCKS	((uint32_t)(FILE_BYTES / STORM_BLOCK))
#define HUGE_BLOCKS	((uint32_t)(HUGE_BLOCK / STORM_BLOCK))
#define SCRATCH_BYTES	(4 * MIB)	/* for the buffers of the traffic */

#define MAX_FOCI	8u

struct arena {
	struct ledger ledger;
	/* One reservation: home and away of the anonymous blocks, and scratch memory, each 2 MiB aligned. */
	char *base;
	uint64_t bytes;
	char *scratch;
	/* The file, if there is one. */
	const struct filesystem *fs;
	int fd;
	char *file;
	/* The blocks where disturbers are at work, which the traffic prefers: first | count << 32. */
	_Atomic uint64_t foci[MAX_FOCI];
};

/* The anonymous arena, and the file's if `fs` is not NULL. */
void arena_init(struct arena *arena, const struct filesystem *fs);
void arena_free(struct arena *arena);

/* Where block `index` of the anonymous arena lives at first, and where it may move to. */
char *arena_home(const struct arena *arena, uint32_t index);
char *arena_away(const struct arena *arena, uint32_t index);

/*
 * Claims `count` blocks from `first` on for one disturber; false if another has one of them. The traffic prefers
 * claimed blocks.
 */
bool arena_claim(struct arena *arena, uint32_t first, uint32_t count);
void arena_release(struct arena *arena, uint32_t first, uint32_t count);

/* Makes the traffic prefer some blocks without a claim, and ends that. */
void arena_attract(struct arena *arena, uint32_t first, uint32_t count);
void arena_distract(struct arena *arena, uint32_t first, uint32_t count);

/* Tries random places of the anonymous arena until a claim succeeds. */
uint32_t arena_claim_some(struct arena *arena, uint32_t count, struct rng *rng);

/* Operations that completed in a range of blocks. */
uint64_t arena_operations(struct arena *arena, uint32_t first, uint32_t count);

/* Page frame of each page from `address` on, 0 where none is present; and how many are swapped out. */
uint64_t pages_look(const void *address, uint32_t count, uint64_t *frames);

#endif
