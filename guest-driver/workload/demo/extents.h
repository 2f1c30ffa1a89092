/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Where a file's blocks lie on the medium, by the filesystem's own extent map (FIEMAP). */
#ifndef DEMO_EXTENTS_H
#define DEMO_EXTENTS_H

#include "common/util.h"

/* One file's map: medium block number + 1 of each 4 KiB block, 0 for a hole. */
struct block_map {
	uint64_t count;
	uint64_t *blocks;
};

void block_map_read(struct block_map *map, int fd, uint64_t file_bytes);
void block_map_free(struct block_map *map);

/* Blocks whose offset in the file and place on the medium agree modulo 2 MiB, in whole runs of 2 MiB: bytes. */
uint64_t block_map_huge_bytes(const struct block_map *map);

/*
 * Blocks of `now` that lie elsewhere than the last time they lay anywhere; `last` remembers. A hole moves
 * nothing, and a refilled hole counts if its block is another one.
 */
uint64_t block_map_moved(struct block_map *last, const struct block_map *now);

/* A set of places on the medium. */
struct block_set {
	uint64_t size;		/* places that the bits reach to */
	unsigned char *bits;
};

void block_set_add(struct block_set *set, const struct block_map *map);
void block_set_free(struct block_set *set);

/* How many blocks of `map` lie in places of the set. */
uint64_t block_set_count(const struct block_set *set, const struct block_map *map);

#endif
