// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void snapshot_begin(struct snapshot *snapshot, struct run *run, const char *kind, uint64_t number,
		    uint64_t offset, uint64_t length)
{
	snprintf(snapshot->name, sizeof(snapshot->name), "%s-%" PRIu64, kind, number);
	snapshot->fd = fs_create_file(&run->options->fs, snapshot->name);
	moment_begin(&snapshot->moment, &run->ledger, offset, length);
}

static uint64_t sum_slot(const struct snapshot *snapshot, const struct slot *slot, uint64_t *buffer)
{
	uint64_t sum = 1;

	fs_read(snapshot->fd, buffer, slot->length, slot->offset);
	for (uint32_t i = 0; i < slot->length / 8; i++)
		sum = (sum ^ buffer[i]) * 0x9e3779b97f4a7c15ull;
	return sum | 1;
}

void snapshot_end(struct snapshot *snapshot, struct run *run)
{
	struct moment *moment = &snapshot->moment;
	uint64_t *buffer = xcalloc(1, RECORD_MAX);

	moment_end(moment, &run->ledger);
	snapshot->sums = xcalloc(moment->count, sizeof(*snapshot->sums));
	for (uint32_t i = 0; i < moment->count; i++)
		if (!window_exact(&moment->windows[i]))
			snapshot->sums[i] =
				sum_slot(snapshot, &run->layout.slots[moment->first + i], buffer);
	free(buffer);
}

static void verify_sums(const struct snapshot *snapshot, struct run *run)
{
	uint64_t *buffer = xcalloc(1, RECORD_MAX);

	for (uint32_t i = 0; i < snapshot->moment.count; i++) {
		const struct slot *slot = &run->layout.slots[snapshot->moment.first + i];

		if (!snapshot->sums[i] || sum_slot(snapshot, slot, buffer) == snapshot->sums[i])
			continue;
		run->counters->bytes_wrong += slot->length;
		run_fail(run, "%s changed after its moment: slot %u at %#" PRIx64, snapshot->name, slot->index,
			 slot->offset);
	}
	free(buffer);
}

void snapshot_retire(struct snapshot *snapshot, struct run *run)
{
	const struct moment *moment = &snapshot->moment;

	if (snapshot->fd < 0)
		return;
	sabotage_file(run, SABOTAGE_COPY, snapshot->fd, moment->offset, moment->length);
	verify_moment(run, snapshot->fd, moment, snapshot->name);
	verify_sums(snapshot, run);
	close(snapshot->fd);
	fs_remove(&run->options->fs, snapshot->name);
	free(snapshot->sums);
	moment_free(&snapshot->moment);
	*snapshot = (struct snapshot){ .fd = -1 };
}
