// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `truncate`: the tail of a file on persistent memory is cut under DMA into its mapping. Until the file grows
 * again, DMA beyond the end must fail, and the blocks that were freed go to another file, which must keep what
 * it holds. Then the tail is zeros.
 */
#define _GNU_SOURCE
#include "run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_BLOCKS	24u
#define SUCCESSOR_NAME	"successor"

static void check_size(struct storm *storm, uint64_t bytes)
{
	struct stat info;

	if (fstat(storm->arena.fd, &info) || (uint64_t)info.st_size != bytes)
		storm_complain(storm, "the file has %lld bytes, not %" PRIu64, (long long)info.st_size, bytes);
}

/* Another file, of as many bytes as were cut off. */
static int make_successor(struct storm *storm, uint64_t *words, uint64_t bytes)
{
	int fd = fs_create_file(storm->arena.fs, SUCCESSOR_NAME);

	for (uint64_t i = 0; i < bytes / 8; i++)
		words[i] = word_of(WORD_ID_SUCCESSOR, 2, i & 0xffff);
	fs_write(fd, words, bytes, 0);
	return fd;
}

static void check_successor(struct storm *storm, int fd, uint64_t *words, uint64_t bytes)
{
	fs_read(fd, words, bytes, 0);
	storm->tally.words_checked += bytes / 8;
	for (uint64_t i = 0; i < bytes / 8; i++)
		if (words[i] != word_of(WORD_ID_SUCCESSOR, 2, i & 0xffff)) {
			storm_complain(storm, "another file was written to: word %" PRIu64 " is %016" PRIx64, i,
				       words[i]);
			break;
		}
	close(fd);
	fs_remove(storm->arena.fs, SUCCESSOR_NAME);
}

static void disturb(struct disturbance *self)
{
	struct storm *storm = self->storm;
	struct ledger *ledger = &storm->arena.ledger;
	uint32_t count = 1 + (uint32_t)rng_below(&self->rng, MOST_BLOCKS);
	uint32_t first = ledger->block_count - count;
	uint64_t bytes = count * STORM_BLOCK, cut = FILE_BYTES - bytes, refused = storm->tally.refused;
	uint64_t *words = xcalloc(1, bytes);
	int successor;

	/* No other disturber uses the file. */
	arena_claim(&storm->arena, first, count);
	storm_await_at(storm, first, count, 6);
	ledger_replace(ledger, first, count);
	ledger_set_state(ledger, first, count, BLOCK_CHANGING);
	fs_truncate(storm->arena.fd, cut);
	ledger_replaced(ledger, first, count);
	ledger_set_state(ledger, first, count, BLOCK_GONE);
	successor = make_successor(storm, words, bytes);
	storm_await_at(storm, first, count, 6);
	check_size(storm, cut);
	check_successor(storm, successor, words, bytes);
	ledger_set_state(ledger, first, count, BLOCK_CHANGING);
	fs_truncate(storm->arena.fd, FILE_BYTES);
	ledger_set_state(ledger, first, count, BLOCK_OPEN);
	self->effect += storm->tally.refused - refused;
	arena_release(&storm->arena, first, count);
	free(words);
}

const struct disturber disturber_truncate = {
	.name = "truncate",
	.what = "the tail of a file on persistent memory cut under DMA",
	.unit = "refused_while_cut",
	.goal = 24,
	.needs_file = true,
	.disturb = disturb,
};
