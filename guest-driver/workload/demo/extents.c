// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "extents.h"

#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define EXTENTS_PER_CALL 512

static void note_extent(struct block_map *map, const struct fiemap_extent *extent)
{
	uint64_t first = extent->fe_logical / BLOCK, count = extent->fe_length / BLOCK;

	if (extent->fe_flags & (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC))
		return;
	for (uint64_t i = 0; i < count && first + i < map->count; i++)
		map->blocks[first + i] = extent->fe_physical / BLOCK + i + 1;
}

void block_map_read(struct block_map *map, int fd, uint64_t file_bytes)
{
	size_t size = sizeof(struct fiemap) + EXTENTS_PER_CALL * sizeof(struct fiemap_extent);
	struct fiemap *request = xcalloc(1, size);
	uint64_t at = 0;
	bool last = false;

	map->count = file_bytes / BLOCK;
	map->blocks = xcalloc(map->count, sizeof(*map->blocks));
	while (!last && at < file_bytes) {
		memset(request, 0, sizeof(*request));
		request->fm_start = at;
		request->fm_length = file_bytes - at;
		request->fm_extent_count = EXTENTS_PER_CALL;
		if (ioctl(fd, FS_IOC_FIEMAP, request))
			die("FS_IOC_FIEMAP: %s", strerror(errno));
		last = request->fm_mapped_extents == 0;
		for (uint32_t i = 0; i < request->fm_mapped_extents; i++) {
			const struct fiemap_extent *extent = &request->fm_extents[i];

			note_extent(map, extent);
			at = extent->fe_logical + extent->fe_length;
			last |= (extent->fe_flags & FIEMAP_EXTENT_LAST) != 0;
		}
	}
	free(request);
}

void block_map_free(struct block_map *map)
{
	free(map->blocks);
	*map = (struct block_map){ 0 };
}

uint64_t block_map_huge_bytes(const struct block_map *map)
{
	uint64_t per_huge = HUGE_BLOCK / BLOCK, bytes = 0;

	for (uint64_t first = 0; first + per_huge <= map->count; first += per_huge) {
		uint64_t i = 0, start = map->blocks[first];

		if (!start || (start - 1) % per_huge)
			continue;
		while (i < per_huge && map->blocks[first + i] == start + i)
			i++;
		bytes += i == per_huge ? HUGE_BLOCK : 0;
	}
	return bytes;
}

uint64_t block_map_moved(struct block_map *last, const struct block_map *now)
{
	uint64_t moved = 0, count = last->count < now->count ? last->count : now->count;

	for (uint64_t i = 0; i < count; i++) {
		if (!now->blocks[i])
			continue;
		moved += last->blocks[i] && last->blocks[i] != now->blocks[i];
		last->blocks[i] = now->blocks[i];
	}
	return moved;
}

void block_set_add(struct block_set *set, const struct block_map *map)
{
	for (uint64_t i = 0; i < map->count; i++) {
		uint64_t block = map->blocks[i], size = set->size;

		if (!block)
			continue;
		if (block >= size) {
			/* Both sizes are multiples of 8. */
			set->size = (block / 8 + 8 * 1024) * 8;
			set->bits = realloc(set->bits, set->size / 8);
			if (!set->bits)
				die("out of memory for a set of blocks");
			memset(set->bits + size / 8, 0, (set->size - size) / 8);
		}
		set->bits[block / 8] |= (unsigned char)(1u << block % 8);
	}
}

void block_set_free(struct block_set *set)
{
	free(set->bits);
	*set = (struct block_set){ 0 };
}

uint64_t block_set_count(const struct block_set *set, const struct block_map *map)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < map->count; i++) {
		uint64_t block = map->blocks[i];

		count += block && block < set->size && (set->bits[block / 8] >> block % 8 & 1);
	}
	return count;
}
