// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "demo_heir.h"

#include <unistd.h>

#define BALLAST	"ballast"
#define RESERVE	"reserve"
#define HEIR	"heir"

void heir_fill_up(struct run *run, uint64_t leave, uint64_t reserve)
{
	heir_take_reserve(run, reserve);
	fs_fill_up(&run->options->fs, BALLAST, leave);
}

void heir_lend_reserve(struct run *run)
{
	fs_remove(&run->options->fs, RESERVE);
	syncfs(run->fd);
}

void heir_take_reserve(struct run *run, uint64_t reserve)
{
	int fd = fs_create_file(&run->options->fs, RESERVE);

	syncfs(fd);
	if (reserve)
		fs_allocate(fd, 0, reserve);
	close(fd);
}

void heir_note_blocks(struct heir *heir, struct run *run)
{
	struct block_map map;

	block_map_read(&map, run->fd, run->layout.file_bytes);
	block_set_add(&heir->former, &map);
	block_map_free(&map);
}

void heir_create(struct heir *heir, struct run *run, uint64_t bytes)
{
	struct block_map map;

	heir->fd = fs_create_file(&run->options->fs, HEIR);
	heir->bytes = bytes;
	heir->seed = rng_next(&run->rng);
	/* Freed blocks can be allocated again once the log with their freeing is written. */
	syncfs(heir->fd);
	fill_pattern(heir->fd, bytes, heir->seed);
	fs_sync(heir->fd);
	block_map_read(&map, heir->fd, bytes);
	heir->inherited += block_set_count(&heir->former, &map);
	block_map_free(&map);
}

void heir_verify(const struct heir *heir, struct run *run)
{
	if (heir->fd < 0)
		return;
	verify_pattern(run, heir->fd, heir->bytes, heir->seed, "the freed blocks' next owner");
}

void heir_retire(struct heir *heir, struct run *run)
{
	if (heir->fd < 0)
		return;
	sabotage_file(run, SABOTAGE_HEIR, heir->fd, 0, heir->bytes);
	heir_verify(heir, run);
	close(heir->fd);
	fs_remove(&run->options->fs, HEIR);
	heir->fd = -1;
}

void heir_finish(struct heir *heir, struct run *run)
{
	heir_retire(heir, run);
	fs_remove(&run->options->fs, BALLAST);
	fs_remove(&run->options->fs, RESERVE);
	block_set_free(&heir->former);
}
