// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "record.h"

#include <stdio.h>
#include <string.h>

#define STEP		0x9e3779b97f4a7c15ull
#define HEADER_WORDS	(RECORD_HEADER / 8)
#define STRIDE		64	/* words compared between two looks at the result */

/* Header words; the rest of a record is seed + index * STEP. */
enum header {
	H_MAGIC,
	H_RUN,
	H_VERSION,
	H_PLACE,	/* slot | qp << 32 */
	H_LENGTH,
	H_OFFSET,
	H_SEED,
	H_CHECKSUM,	/* of the words before it */
};

static uint64_t seed_of(uint64_t run, const struct slot *slot, version_t version)
{
	return mix64(run ^ mix64(version ^ mix64(slot->index + 1)));
}

static void header_of(uint64_t *h, uint64_t run, const struct slot *slot, version_t version)
{
	uint64_t sum = 0;

	h[H_MAGIC] = RECORD_MAGIC;
	h[H_RUN] = run;
	h[H_VERSION] = version;
	h[H_PLACE] = slot->index | (uint64_t)slot->qp << 32;
	h[H_LENGTH] = slot->length;
	h[H_OFFSET] = slot->offset;
	h[H_SEED] = seed_of(run, slot, version);
	for (int i = 0; i < H_CHECKSUM; i++)
		sum = mix64(sum ^ h[i]);
	h[H_CHECKSUM] = sum;
}

uint64_t record_word(uint64_t run, const struct slot *slot, version_t version, uint64_t index)
{
	uint64_t header[HEADER_WORDS];

	if (version == VERSION_ZEROS)
		return 0;
	if (index >= HEADER_WORDS)
		return seed_of(run, slot, version) + index * STEP;
	header_of(header, run, slot, version);
	return header[index];
}

void record_fill(void *buffer, uint64_t run, const struct slot *slot, version_t version)
{
	uint64_t *words = buffer, count = slot->length / 8, value;

	if (version == VERSION_ZEROS) {
		memset(buffer, 0, slot->length);
		return;
	}
	header_of(words, run, slot, version);
	value = words[H_SEED] + HEADER_WORDS * STEP;
	for (uint64_t i = HEADER_WORDS; i < count; i++, value += STEP)
		words[i] = value;
}

/* How many words from `from` on agree with `version`. */
static uint64_t run_length(const uint64_t *words, uint64_t from, uint64_t count, uint64_t run,
			   const struct slot *slot, version_t version)
{
	uint64_t seed = seed_of(run, slot, version), step = STEP, i = from;

	for (; i < count && i < HEADER_WORDS; i++)
		if (words[i] != record_word(run, slot, version, i))
			return i - from;
	if (version == VERSION_ZEROS)
		seed = step = 0;
	for (; i + STRIDE <= count; i += STRIDE) {
		uint64_t difference = 0, expected = seed + i * step;

		for (uint64_t k = 0; k < STRIDE; k++, expected += step)
			difference |= words[i + k] ^ expected;
		if (difference)
			break;
	}
	while (i < count && words[i] == seed + i * step)
		i++;
	return i - from;
}

/* The longest agreement any allowed version offers from `from` on; *current becomes that version. */
static uint64_t best_run(const uint64_t *words, uint64_t from, uint64_t count, uint64_t run,
			 const struct slot *slot, const struct window *window, version_t *current)
{
	uint64_t best = 0, length;

	if (window->maybe_base) {
		best = run_length(words, from, count, run, slot, window->base);
		if (best)
			*current = window->base;
	}
	for (version_t v = window->hi; v >= window->lo && v > 0 && best < count - from; v--) {
		length = run_length(words, from, count, run, slot, v);
		if (length > best) {
			best = length;
			*current = v;
		}
	}
	return best;
}

uint64_t record_check(const void *data, uint64_t run, const struct slot *slot,
		      const struct window *window, struct mismatch *first)
{
	const uint64_t *words = data;
	uint64_t count = slot->length / 8, at = 0, wrong = 0;
	version_t current = window->maybe_base ? window->base : window->lo;

	while (at < count) {
		uint64_t length = best_run(words, at, count, run, slot, window, &current);

		if (length) {
			at += length;
			continue;
		}
		if (!wrong)
			*first = (struct mismatch){
				.offset = slot->offset + at * 8,
				.found = words[at],
				.expected = record_word(run, slot, current, at),
				.version = current,
			};
		wrong += 8;
		at++;
	}
	return wrong;
}

void record_describe(const void *data, char *text, size_t size)
{
	const uint64_t *h = data;
	uint64_t sum = 0;

	for (int i = 0; i < H_CHECKSUM; i++)
		sum = mix64(sum ^ h[i]);
	if (h[H_MAGIC] != RECORD_MAGIC)
		snprintf(text, size, "no record header");
	else
		snprintf(text, size, "%s header of slot %u, queue pair %u, version %#llx, %llu bytes at %#llx, run %#llx",
			 sum == h[H_CHECKSUM] ? "the" : "a torn", (unsigned int)h[H_PLACE],
			 (unsigned int)(h[H_PLACE] >> 32), (unsigned long long)h[H_VERSION],
			 (unsigned long long)h[H_LENGTH], (unsigned long long)h[H_OFFSET],
			 (unsigned long long)h[H_RUN]);
}
