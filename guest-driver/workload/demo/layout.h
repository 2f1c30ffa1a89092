/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* How the file is cut into slots: 64 B to 1 MiB mixed, packed at multiples of 64 B so that records straddle pages. */
#ifndef DEMO_LAYOUT_H
#define DEMO_LAYOUT_H

#include "record.h"

#define LAYOUT_UNIT	(4 * MIB)	/* no slot crosses a multiple of it */
#define SIZE_CLASSES	8		/* 64 B, 256 B, 1 KiB, 4, 16, 64, 256 KiB, 1 MiB */

struct layout {
	uint64_t file_bytes;
	uint32_t count;
	uint32_t qps;
	struct slot *slots;		/* in file order */
	/* Slot numbers by owner and size class. */
	uint32_t **members;		/* [qp * SIZE_CLASSES + class] */
	uint32_t *member_count;
};

/*
 * Cuts `file_bytes` (a multiple of LAYOUT_UNIT) among `qps` queue pairs. With `tail_bytes`, the last queue
 * pair owns exactly the slots of the last `tail_bytes` (a multiple of LAYOUT_UNIT) and the others the rest.
 */
void layout_build(struct layout *layout, uint64_t file_bytes, uint32_t qps, uint64_t tail_bytes,
		  uint64_t seed);
void layout_free(struct layout *layout);

/* A slot of `qp`, small ones more often; NULL if it owns none. */
const struct slot *layout_pick(const struct layout *layout, uint32_t qp, struct rng *rng);

/* First slot that begins at or after `offset`; layout->count if there is none. */
uint32_t layout_find(const struct layout *layout, uint64_t offset);

#endif
