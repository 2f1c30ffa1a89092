// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "arena.h"
#include "common/small_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FILE_NAME	"storm"
#define PAGE_PRESENT	(UINT64_C(1) << 63)
#define PAGE_SWAPPED	(UINT64_C(1) << 62)
#define PAGE_FRAME	((UINT64_C(1) << 55) - 1)
#define LOOK_AT_ONCE	512

static char *reserve(uint64_t bytes)
{
	uint64_t span = bytes + HUGE_BLOCK;
	char *area = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *start = (char *)(((uintptr_t)area + HUGE_BLOCK - 1) & ~(uintptr_t)(HUGE_BLOCK - 1));

	if (area == MAP_FAILED)
		die("reserving %llu bytes of addresses: %s", (unsigned long long)span, strerror(errno));
	munmap(area, (size_t)(start - area));
	munmap(start + bytes, (size_t)(area + span - (start + bytes)));
	return start;
}

static void make_accessible(char *start, uint64_t bytes)
{
	if (mprotect(start, bytes, PROT_READ | PROT_WRITE) || ask_for_small_pages(start, bytes))
		die("memory for the arena: %s", strerror(errno));
}

static void map_file(struct arena *arena, const struct filesystem *fs)
{
	arena->fs = fs;
	arena->fd = fs_create_file(fs, FILE_NAME);
	fs_hint_extent_size(arena->fd, HUGE_BLOCK);
	fs_allocate(arena->fd, 0, FILE_BYTES);
	arena->file = fs_map(arena->fd, FILE_BYTES, MAPPING_2M);
}

void arena_init(struct arena *arena, const struct filesystem *fs)
{
	*arena = (struct arena){ .fd = -1, .bytes = 2 * ANON_BYTES + SCRATCH_BYTES };
	ledger_init(&arena->ledger, ANON_BLOCKS + (fs ? FILE_BLOCKS : 0), TWIN_BLOCKS);
	arena->base = reserve(arena->bytes);
	arena->scratch = arena->base + 2 * ANON_BYTES;
	make_accessible(arena->base, ANON_BYTES);
	make_accessible(arena->scratch, SCRATCH_BYTES);
	if (fs)
		map_file(arena, fs);
	for (uint32_t i = 0; i < arena->ledger.block_count; i++)
		arena->ledger.blocks[i].address = i < ANON_BLOCKS ? arena_home(arena, i) :
						  arena->file + (i - ANON_BLOCKS) * STORM_BLOCK;
}

void arena_free(struct arena *arena)
{
	munmap(arena->base, arena->bytes);
	if (arena->fs) {
		fs_unmap(arena->file, FILE_BYTES);
		close(arena->fd);
		fs_remove(arena->fs, FILE_NAME);
	}
	ledger_free(&arena->ledger);
}

char *arena_home(const struct arena *arena, uint32_t index)
{
	return arena->base + index * STORM_BLOCK;
}

char *arena_away(const struct arena *arena, uint32_t index)
{
	return arena_home(arena, index) + ANON_BYTES;
}

/* With all places taken, the traffic reaches the blocks by chance. */
static void exchange_focus(struct arena *arena, uint64_t from, uint64_t to)
{
	for (uint32_t i = 0; i < MAX_FOCI; i++) {
		uint64_t expected = from;

		if (atomic_compare_exchange_strong(&arena->foci[i], &expected, to))
			return;
	}
}

void arena_attract(struct arena *arena, uint32_t first, uint32_t count)
{
	exchange_focus(arena, 0, first | (uint64_t)count << 32);
}

void arena_distract(struct arena *arena, uint32_t first, uint32_t count)
{
	exchange_focus(arena, first | (uint64_t)count << 32, 0);
}

bool arena_claim(struct arena *arena, uint32_t first, uint32_t count)
{
	struct block *blocks = &arena->ledger.blocks[first];
	bool mine = true;

	ledger_lock(&arena->ledger);
	for (uint32_t i = 0; i < count; i++)
		mine &= !blocks[i].claimed;
	for (uint32_t i = 0; i < count && mine; i++)
		blocks[i].claimed = true;
	ledger_unlock(&arena->ledger);
	if (mine)
		arena_attract(arena, first, count);
	return mine;
}

void arena_release(struct arena *arena, uint32_t first, uint32_t count)
{
	ledger_lock(&arena->ledger);
	for (uint32_t i = first; i < first + count; i++)
		arena->ledger.blocks[i].claimed = false;
	ledger_unlock(&arena->ledger);
	arena_distract(arena, first, count);
}

uint32_t arena_claim_some(struct arena *arena, uint32_t count, struct rng *rng)
{
	for (;;) {
		uint32_t first = (uint32_t)rng_below(rng, ANON_BLOCKS - count + 1);

		if (arena_claim(arena, first, count))
			return first;
		sleep_ms(1);
	}
}

uint64_t arena_operations(struct arena *arena, uint32_t first, uint32_t count)
{
	uint64_t sum = 0;

	ledger_lock(&arena->ledger);
	for (uint32_t i = first; i < first + count; i++)
		sum += arena->ledger.blocks[i].operations;
	ledger_unlock(&arena->ledger);
	return sum;
}

uint64_t pages_look(const void *address, uint32_t count, uint64_t *frames)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entries[LOOK_AT_ONCE], swapped = 0;

	for (uint32_t done = 0; done < count;) {
		uint32_t step = count - done < LOOK_AT_ONCE ? count - done : LOOK_AT_ONCE;
		off_t offset = (off_t)(((uintptr_t)address / BLOCK + done) * 8);

		if (fd < 0 || pread(fd, entries, step * 8, offset) != (ssize_t)step * 8)
			die("/proc/self/pagemap: %s", strerror(errno));
		for (uint32_t i = 0; i < step; i++) {
			bool present = entries[i] & PAGE_PRESENT;

			swapped += (entries[i] & PAGE_SWAPPED) != 0;
			if (frames)
				frames[done + i] = present ? entries[i] & PAGE_FRAME : 0;
		}
		done += step;
	}
	close(fd);
	return swapped;
}
