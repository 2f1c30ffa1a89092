// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "layout.h"

#include <stdlib.h>
#include <string.h>

/* One unit of 4 MiB holds this many of each class, which fills it exactly. */
static const struct {
	uint32_t bytes;
	uint32_t per_unit;
	uint32_t weight;	/* of 100 writes, this many go to the class */
} classes[SIZE_CLASSES] = {
	{ 64, 1024, 30 },
	{ 256, 512, 16 },
	{ KIB, 256, 16 },
	{ 4 * KIB, 128, 18 },
	{ 16 * KIB, 32, 10 },
	{ 64 * KIB, 9, 6 },
	{ 256 * KIB, 4, 3 },
	{ MIB, 1, 1 },
};

static uint32_t class_of(uint32_t bytes)
{
	uint32_t class = 0;

	while (classes[class].bytes != bytes)
		class++;
	return class;
}

static uint32_t slots_per_unit(void)
{
	uint32_t count = 0;

	for (int c = 0; c < SIZE_CLASSES; c++)
		count += classes[c].per_unit;
	return count;
}

/* The sizes of one unit in random order. */
static void shuffle_sizes(uint32_t *sizes, uint32_t count, struct rng *rng)
{
	uint32_t n = 0;

	for (int c = 0; c < SIZE_CLASSES; c++)
		for (uint32_t i = 0; i < classes[c].per_unit; i++)
			sizes[n++] = classes[c].bytes;
	for (uint32_t i = count - 1; i > 0; i--) {
		uint32_t k = (uint32_t)rng_below(rng, i + 1), size = sizes[i];

		sizes[i] = sizes[k];
		sizes[k] = size;
	}
}

static uint32_t owner_of(const struct layout *layout, uint32_t index, uint64_t offset, uint64_t tail)
{
	if (!tail || layout->qps == 1)
		return index % layout->qps;
	if (offset >= layout->file_bytes - tail)
		return layout->qps - 1;
	return index % (layout->qps - 1);
}

static void index_members(struct layout *layout)
{
	size_t lists = (size_t)layout->qps * SIZE_CLASSES;

	layout->members = xcalloc(lists, sizeof(*layout->members));
	layout->member_count = xcalloc(lists, sizeof(*layout->member_count));
	for (uint32_t i = 0; i < layout->count; i++) {
		const struct slot *slot = &layout->slots[i];

		layout->member_count[slot->qp * SIZE_CLASSES + class_of(slot->length)]++;
	}
	for (size_t l = 0; l < lists; l++) {
		layout->members[l] = xcalloc(layout->member_count[l], sizeof(**layout->members));
		layout->member_count[l] = 0;
	}
	for (uint32_t i = 0; i < layout->count; i++) {
		size_t l = layout->slots[i].qp * SIZE_CLASSES + class_of(layout->slots[i].length);

		layout->members[l][layout->member_count[l]++] = i;
	}
}

void layout_build(struct layout *layout, uint64_t file_bytes, uint32_t qps, uint64_t tail_bytes,
		  uint64_t seed)
{
	uint32_t per_unit = slots_per_unit(), n = 0;
	uint32_t *sizes = xcalloc(per_unit, sizeof(*sizes));
	struct rng rng = { .state = seed };

	*layout = (struct layout){
		.file_bytes = file_bytes,
		.qps = qps,
		.count = (uint32_t)(file_bytes / LAYOUT_UNIT) * per_unit,
	};
	layout->slots = xcalloc(layout->count, sizeof(*layout->slots));
	for (uint64_t unit = 0; unit < file_bytes; unit += LAYOUT_UNIT) {
		uint64_t offset = unit;

		shuffle_sizes(sizes, per_unit, &rng);
		for (uint32_t i = 0; i < per_unit; i++, n++) {
			layout->slots[n] = (struct slot){
				.offset = offset,
				.length = sizes[i],
				.index = n,
				.qp = owner_of(layout, n, offset, tail_bytes),
			};
			offset += sizes[i];
		}
	}
	free(sizes);
	if (layout->slots[n - 1].offset + layout->slots[n - 1].length != file_bytes)
		die("the slots do not fill the file");
	index_members(layout);
}

void layout_free(struct layout *layout)
{
	for (size_t l = 0; l < (size_t)layout->qps * SIZE_CLASSES; l++)
		free(layout->members[l]);
	free(layout->members);
	free(layout->member_count);
	free(layout->slots);
	*layout = (struct layout){ 0 };
}

const struct slot *layout_pick(const struct layout *layout, uint32_t qp, struct rng *rng)
{
	uint64_t draw = rng_below(rng, 100);
	uint32_t class = 0;

	while (draw >= classes[class].weight)
		draw -= classes[class++].weight;
	for (int tries = 0; tries < SIZE_CLASSES; tries++, class = (class + 1) % SIZE_CLASSES) {
		size_t l = qp * SIZE_CLASSES + class;

		if (layout->member_count[l])
			return &layout->slots[layout->members[l][rng_below(rng, layout->member_count[l])]];
	}
	return NULL;
}

uint32_t layout_find(const struct layout *layout, uint64_t offset)
{
	uint32_t low = 0, high = layout->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (layout->slots[middle].offset < offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}
