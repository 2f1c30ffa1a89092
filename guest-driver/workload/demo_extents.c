// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "demo_extents.h"

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

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

uint64_t block_map_inherited(const struct block_map *map, const struct block_map *old, uint64_t first,
			     uint64_t count)
{
	uint64_t *sorted = xcalloc(count, sizeof(*sorted)), inherited = 0;

	memcpy(sorted, old->blocks + first, count * sizeof(*sorted));
	qsort(sorted, count, sizeof(*sorted), by_number);
	for (uint64_t i = 0; i < map->count; i++)
		if (map->blocks[i])
			inherited += bsearch(&map->blocks[i], sorted, count, sizeof(*sorted), by_number) != NULL;
	free(sorted);
	return inherited;
}
