// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `exchange`: the extents of a range are exchanged with those of a freshly written twin. What the file held
 * is the twin's from then on and must never change; the file shows the twin's records until they are
 * written over. A write in flight at that instant lands, page by page, in the one or the other: it may not
 * be lost in between.
 */
#include "snapshot.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#define SETTLE_NS	2000000000ull

/*
 * A write that was in flight and then acknowledged, with none after it: each of its words must be in the
 * file or in the twin.
 */
static void verify_straddler(struct run *run, const struct snapshot *twin, uint32_t i, uint64_t *ours,
			     uint64_t *theirs)
{
	const struct slot *slot = &run->layout.slots[twin->moment.first + i];
	version_t version = twin->moment.windows[i].hi;
	uint64_t lost = 0;

	fs_read(twin->fd, theirs, slot->length, slot->offset);
	fs_read(run->fd, ours, slot->length, slot->offset);
	if (atomic_load(&run->ledger.posted[slot->index]) != version)
		return;		/* written over meanwhile: nothing to learn here */
	for (uint32_t w = 0; w < slot->length / 8; w++) {
		uint64_t word = record_word(run->id, slot, version, w);

		lost += ours[w] == word || theirs[w] == word ? 0 : 8;
	}
	run->counters->bytes_verified += slot->length - lost;
	run->counters->bytes_wrong += lost;
	if (lost)
		run_fail(run, "%" PRIu64 " acknowledged bytes of slot %u lost in an exchange", lost, slot->index);
}

static void verify_straddlers(struct run *run, const struct snapshot *twin)
{
	uint64_t *ours = xcalloc(1, RECORD_MAX), *theirs = xcalloc(1, RECORD_MAX), start = now_ns();

	for (uint32_t i = 0; i < twin->moment.count; i++) {
		_Atomic uint64_t *acked = &run->ledger.acked[twin->moment.first + i];
		version_t last = twin->moment.windows[i].hi;

		if (last == twin->moment.acked[i])
			continue;
		while (atomic_load(acked) < last && now_ns() - start < SETTLE_NS)
			sleep_ms(1);
		if (atomic_load(acked) == last)
			verify_straddler(run, twin, i, ours, theirs);
	}
	free(ours);
	free(theirs);
}

static void exchange_range(struct run *run, struct snapshot *twin, uint64_t round, uint64_t offset,
			   uint64_t length)
{
	snapshot_begin(twin, run, "twin", round, offset, length);
	fs_truncate(twin->fd, run->layout.file_bytes);
	if (run->mapping_mode == MAPPING_2M)
		fs_hint_extent_size(twin->fd, HUGE_BLOCK);
	fill_records(run, twin->fd, offset, length, VERSION_FILL(round));
	fs_sync(twin->fd);

	/* The moment begins now: what was noted before the twin was written is only a wider window. */
	moment_free(&twin->moment);
	moment_begin(&twin->moment, &run->ledger, offset, length);
	fs_exchange(run->fd, twin->fd, offset, length);
	snapshot_end(twin, run);
	ledger_replace(&run->ledger, &twin->moment, VERSION_FILL(round));
	stream_new_epoch(run->stream);
	run->counters->operations++;
	run_count_moved(run);
}

static void exchange(struct run *run)
{
	struct snapshot twin = { .fd = -1 };
	uint64_t length = run->layout.file_bytes / 4, round = 0;

	while (run_go_on(run, fmin(run_progress(run, run->counters->blocks_moved, 1500),
				   run_progress(run, run->counters->operations, 5)))) {
		/* The last twin had a whole round to be changed in. */
		snapshot_retire(&twin, run);
		round++;
		exchange_range(run, &twin, round, round % 4 * length, length);
		verify_straddlers(run, &twin);
	}
	run_quiesce(run);
	snapshot_retire(&twin, run);
}

const struct scenario scenario_exchange = {
	.name = "exchange",
	.what = "extents exchanged with a freshly written twin",
	.weight = 1.2,
	.run = exchange,
};
