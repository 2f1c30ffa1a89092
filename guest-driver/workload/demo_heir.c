// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "demo_heir.h"

#include <unistd.h>

#define BALLAST	"ballast"
#define HEIR	"heir"

void heir_fill_up(struct run *run, uint64_t leave)
{
	fs_fill_up(&run->options->fs, BALLAST, leave);
}

void heir_release_space(struct run *run)
{
	fs_remove(&run->options->fs, BALLAST);
}

uint64_t heir_create(struct heir *heir, struct run *run, const struct block_map *old, uint64_t offset,
		     uint64_t bytes)
{
	struct block_map map;
	uint64_t inherited;

	*heir = (struct heir){
		.fd = fs_create_file(&run->options->fs, HEIR),
		.bytes = bytes,
		.seed = rng_next(&run->rng),
	};
	fill_pattern(heir->fd, bytes, heir->seed);
	fs_sync(heir->fd);
	block_map_read(&map, heir->fd, bytes);
	inherited = block_map_inherited(&map, old, offset / BLOCK, bytes / BLOCK);
	block_map_free(&map);
	return inherited;
}

void heir_verify(const struct heir *heir, struct run *run)
{
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
	*heir = (struct heir){ .fd = -1 };
}
