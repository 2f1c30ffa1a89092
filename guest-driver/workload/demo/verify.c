// SPDX-License-Identifier: Apache-2.0 OR MIT
/* Reading back. All of it goes through read(2): the filesystem's own view of where the bytes are. */
#include "run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNK	(4 * MIB)	/* LAYOUT_UNIT: no slot crosses it */
#define STEP	0x9e3779b97f4a7c15ull

/* Names the first wrong word of a slot on standard output, and fails the run. */
static void report(struct run *run, const char *what, const struct slot *slot, const void *data,
		   const struct window *window, const struct mismatch *bad)
{
	char header[200];

	run_fail(run, "%s: wrong data at %#" PRIx64 " (slot %u of %u bytes at %#" PRIx64 ")", what, bad->offset,
		 slot->index, slot->length, slot->offset);
	if (run->counters->bytes_wrong > 64 * KIB)
		return;
	record_describe(data, header, sizeof(header));
	printf("  wrong: %s: at %#" PRIx64 " in slot %u (%u bytes at %#" PRIx64 ", queue pair %u): found %016" PRIx64
	       ", version %#" PRIx64 " has %016" PRIx64 "; allowed [%" PRIu64 ", %" PRIu64 "]%s; the slot begins with %s\n",
	       what, bad->offset, slot->index, slot->length, slot->offset, slot->qp, bad->found, bad->version,
	       bad->expected, window->lo, window->hi, window->maybe_base ? " or the base" : "", header);
	fflush(stdout);
}

static void verify_slot(struct run *run, const struct slot *slot, const void *data,
			const struct window *window, const char *what)
{
	struct mismatch bad;
	uint64_t wrong = record_check(data, run->id, slot, window, &bad);

	run->counters->bytes_verified += slot->length - wrong;
	if (!wrong)
		return;
	run->counters->bytes_wrong += wrong;
	report(run, what, slot, data, window, &bad);
}

void verify_range(struct run *run, int fd, uint64_t offset, uint64_t length)
{
	char *buffer = xcalloc(1, CHUNK);
	uint32_t slot = layout_find(&run->layout, offset);

	for (uint64_t at = offset; at < offset + length; at += CHUNK) {
		fs_read(fd, buffer, CHUNK, at);
		for (; slot < run->layout.count && run->layout.slots[slot].offset < at + CHUNK; slot++) {
			struct window window = ledger_window(&run->ledger, slot);
			const struct slot *s = &run->layout.slots[slot];

			verify_slot(run, s, buffer + (s->offset - at), &window, "the file");
		}
	}
	free(buffer);
}

void verify_file(struct run *run, int fd)
{
	verify_range(run, fd, 0, run->layout.file_bytes);
}

void verify_moment(struct run *run, int fd, const struct moment *moment, const char *what)
{
	char *buffer = xcalloc(1, CHUNK);
	uint64_t loaded = UINT64_MAX;

	for (uint32_t i = 0; i < moment->count; i++) {
		const struct slot *slot = &run->layout.slots[moment->first + i];
		uint64_t chunk = slot->offset / CHUNK * CHUNK;

		if (chunk != loaded)
			fs_read(fd, buffer, CHUNK, chunk);
		loaded = chunk;
		verify_slot(run, slot, buffer + (slot->offset - chunk), &moment->windows[i], what);
	}
	free(buffer);
}

void verify_samples(struct run *run, uint32_t samples)
{
	char *buffer = xcalloc(1, RECORD_MAX);

	for (uint32_t i = 0; i < samples; i++) {
		uint32_t index = (uint32_t)rng_below(&run->rng, run->layout.count);
		const struct slot *slot = &run->layout.slots[index];
		struct window before = ledger_window(&run->ledger, index), after;

		fs_read(run->fd, buffer, slot->length, slot->offset);
		after = ledger_window(&run->ledger, index);
		/* A write in flight at some point may have been caught in the middle of a word. */
		if (!window_exact(&before) || after.hi != before.hi)
			continue;
		verify_slot(run, slot, buffer, &before, "the file, while written to");
	}
	free(buffer);
}

void fill_records(struct run *run, int fd, uint64_t offset, uint64_t length, version_t version)
{
	char *buffer = xcalloc(1, CHUNK);
	uint32_t slot = layout_find(&run->layout, offset);

	for (uint64_t at = offset; at < offset + length; at += CHUNK) {
		for (; slot < run->layout.count && run->layout.slots[slot].offset < at + CHUNK; slot++) {
			const struct slot *s = &run->layout.slots[slot];

			record_fill(buffer + (s->offset - at), run->id, s, version);
		}
		fs_write(fd, buffer, CHUNK, at);
	}
	free(buffer);
}

void fill_pattern(int fd, uint64_t bytes, uint64_t seed)
{
	uint64_t *buffer = xcalloc(1, CHUNK);

	for (uint64_t at = 0; at < bytes; at += CHUNK) {
		uint64_t length = bytes - at < CHUNK ? bytes - at : CHUNK;

		for (uint64_t i = 0; i < length / 8; i++)
			buffer[i] = seed + (at / 8 + i) * STEP;
		fs_write(fd, buffer, length, at);
	}
	free(buffer);
}

void verify_pattern(struct run *run, int fd, uint64_t bytes, uint64_t seed, const char *what)
{
	uint64_t *buffer = xcalloc(1, CHUNK), wrong = 0;

	for (uint64_t at = 0; at < bytes; at += CHUNK) {
		uint64_t length = bytes - at < CHUNK ? bytes - at : CHUNK;

		fs_read(fd, buffer, length, at);
		for (uint64_t i = 0; i < length / 8; i++) {
			uint64_t expected = seed + (at / 8 + i) * STEP;

			if (buffer[i] == expected)
				continue;
			if (!wrong)
				run_fail(run, "%s changed: at %#" PRIx64 " found %016" PRIx64 ", not %016" PRIx64,
					 what, at + i * 8, buffer[i], expected);
			wrong += 8;
		}
	}
	run->counters->bytes_verified += bytes - wrong;
	run->counters->bytes_wrong += wrong;
	free(buffer);
}

void sabotage_file(struct run *run, enum sabotage kind, int fd, uint64_t offset, uint64_t length)
{
	uint64_t at = offset + rng_below(&run->rng, length);
	unsigned char byte;

	if (run->options->sabotage != kind)
		return;
	fs_read(fd, &byte, 1, at);
	byte ^= 1u << rng_below(&run->rng, 8);
	fs_write(fd, &byte, 1, at);
	printf("  sabotage: one bit flipped at %#" PRIx64 "\n", at);
}
