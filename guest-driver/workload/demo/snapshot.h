/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A file that holds what the target held at one moment, and must never change again: a reflink copy, or the
 * twin that took over the target's blocks in an exchange. Two checks make "never" exact. Every slot must be
 * of a version the target could hold at the moment; where that is one version, any later change shows. Where
 * a write was in flight, so that several are allowed, the slot's checksum is kept from the start.
 */
#ifndef DEMO_SNAPSHOT_H
#define DEMO_SNAPSHOT_H

#include "run.h"

struct snapshot {
	int fd;			/* -1: none */
	char name[32];
	struct moment moment;
	uint64_t *sums;		/* per slot of the moment; 0 where one version alone is allowed */
};

/* Creates the file and notes what [offset, offset + length) of the target may hold. */
void snapshot_begin(struct snapshot *snapshot, struct run *run, const char *kind, uint64_t number,
		    uint64_t offset, uint64_t length);

/* Right after the operation that gave the file its content. */
void snapshot_end(struct snapshot *snapshot, struct run *run);

/* Judges and removes it; nothing if there is none. */
void snapshot_retire(struct snapshot *snapshot, struct run *run);

#endif
