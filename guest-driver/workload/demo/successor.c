// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "successor.h"

#include <unistd.h>

#define BALLAST	"ballast"
#define RESERVE	"reserve"
#define SUCCESSOR	"successor"

void successor_fill_up(struct run *run, uint64_t leave, uint64_t reserve)
{
	successor_take_reserve(run, reserve);
	fs_fill_up(&run->options->fs, BALLAST, leave);
}

void successor_lend_reserve(struct run *run)
{
	fs_remove(&run->options->fs, RESERVE);
	syncfs(run->fd);
}

void successor_take_reserve(struct run *run, uint64_t reserve)
{
	int fd = fs_create_file(&run->options->fs, RESERVE);

	syncfs(fd);
	if (reserve)
		fs_allocate(fd, 0, reserve);
	close(fd);
}

void successor_note_blocks(struct successor *successor, struct run *run)
{
	struct block_map map;

	block_map_read(&map, run->fd, run->layout.file_bytes);
	block_set_add(&successor->former, &map);
	block_map_free(&map);
}

void successor_create(struct successor *successor, struct run *run, uint64_t bytes)
{
	struct block_map map;

	successor->fd = fs_create_file(&run->options->fs, SUCCESSOR);
	successor->bytes = bytes;
	successor->seed = rng_next(&run->rng);
	/* Freed blocks can be allocated again once the log records that they are free. */
	syncfs(successor->fd);
	fill_pattern(successor->fd, bytes, successor->seed);
	fs_sync(successor->fd);
	block_map_read(&map, successor->fd, bytes);
	successor->inherited += block_set_count(&successor->former, &map);
	block_map_free(&map);
}

void successor_verify(const struct successor *successor, struct run *run)
{
	if (successor->fd < 0)
		return;
	verify_pattern(run, successor->fd, successor->bytes, successor->seed, "the second file");
}

void successor_retire(struct successor *successor, struct run *run)
{
	if (successor->fd < 0)
		return;
	sabotage_file(run, SABOTAGE_SUCCESSOR, successor->fd, 0, successor->bytes);
	successor_verify(successor, run);
	close(successor->fd);
	fs_remove(&run->options->fs, SUCCESSOR);
	successor->fd = -1;
}

void successor_finish(struct successor *successor, struct run *run)
{
	successor_retire(successor, run);
	fs_remove(&run->options->fs, BALLAST);
	fs_remove(&run->options->fs, RESERVE);
	block_set_free(&successor->former);
}
