/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What a slot of the file holds: exactly one record, and every 8-byte word of it is a known function of
 * (run, slot, version). So any word read back can be attributed: to the version that was acknowledged, to a
 * neighbouring one (a torn record), to another slot (a misplaced one), or to nothing of ours.
 *
 * A record begins with a 64-byte header and goes on with an arithmetic sequence whose start differs for
 * every version and whose step is odd: no two positions of a record are alike, and two versions are alike
 * nowhere but in the header words that name the place.
 */
#ifndef DEMO_RECORD_H
#define DEMO_RECORD_H

#include "common/util.h"

#define RECORD_MAGIC	0x74666572746c7561ull
#define RECORD_HEADER	64ull
#define RECORD_MIN	64ull
#define RECORD_MAX	MIB

/*
 * Versions of one slot. The stream counts 1, 2, 3, ...; what the filesystem put there without the stream
 * (a hole's zeros, the content of a freshly written twin) has a number of its own kind.
 */
typedef uint64_t version_t;

#define VERSION_ZEROS		0ull
#define VERSION_FILL_BIT	(1ull << 63)
#define VERSION_FILL(round)	(VERSION_FILL_BIT | (round))

/* A place in the file: [offset, offset + length), written by one queue pair only. */
struct slot {
	uint64_t offset;	/* bytes, a multiple of 64 */
	uint32_t length;	/* bytes, a multiple of 64 */
	uint32_t index;
	uint32_t qp;
};

/*
 * The versions a reader may find in a slot, word by word: any in [lo, hi], or `base` if `maybe_base`.
 * lo > hi is the empty range.
 */
struct window {
	version_t base;
	version_t lo;
	version_t hi;
	bool maybe_base;
};

/* Whether the window allows exactly one version. */
static inline bool window_exact(const struct window *window)
{
	return window->maybe_base ? window->hi < window->lo : window->hi == window->lo;
}

/* Where the first wrong word was, and what stood there. */
struct mismatch {
	uint64_t offset;	/* in the file */
	uint64_t found;
	uint64_t expected;	/* by the version the words before it had */
	version_t version;
};

/* Writes version `version` of `slot` to `buffer`, slot->length bytes. `run` distinguishes scenarios. */
void record_fill(void *buffer, uint64_t run, const struct slot *slot, version_t version);

/* The word at `index` of that record. */
uint64_t record_word(uint64_t run, const struct slot *slot, version_t version, uint64_t index);

/*
 * Compares slot->length bytes at `data` with what the window allows. Returns the number of bytes that no
 * allowed version explains; the first of them is described in *first if that is not zero.
 */
uint64_t record_check(const void *data, uint64_t run, const struct slot *slot,
		      const struct window *window, struct mismatch *first);

/* Says in words what a 64-byte aligned piece of foreign data is, if it is a header of ours. */
void record_describe(const void *data, char *text, size_t size);

#endif
