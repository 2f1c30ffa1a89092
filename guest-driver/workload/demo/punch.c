// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `punch`: ranges are punched out under the stream, which fills the holes again: the device's write into a
 * hole makes the filesystem allocate a block. A second file takes the freed ones and must never change.
 *
 * While a fault waits for its block, XFS holds back as much as it might allocate: a large page, where mappings are
 * large. With tens of faults in a hole at the same time, a file system that is nearly full refuses some of them. So
 * with 2 MiB mappings every other hole is punched while the stream pauses, with the filesystem full but for the
 * freed blocks, and the stream goes on when there is room again. The others are punched under it, in ample room.
 */
#include "successor.h"

#include <inttypes.h>
#include <sys/statvfs.h>

#define ROOM		(24 * MIB)	/* free space: the successor's and the refill's, and some for metadata */
#define SPARE		(8 * MIB)	/* what the successor leaves of it */
#define CROWDED_ROOM	(6 * MIB)	/* the same while the stream pauses, and nothing is refilled */
#define CROWDED_SPARE	(2 * MIB)
#define ROUND_TOUCHES	200
#define ROUND_NS	1000000000ull

static void punch_range(struct run *run, uint64_t offset, uint64_t length)
{
	struct moment moment;

	moment_begin(&moment, &run->ledger, offset, length);
	fs_punch(run->fd, offset, length);
	moment_end(&moment, &run->ledger);
	ledger_replace(&run->ledger, &moment, VERSION_ZEROS);
	moment_free(&moment);
	stream_new_epoch(run->stream);
	run->counters->operations++;
}

static void let_it_refill(struct run *run)
{
	uint64_t start = now_ns(), touches = run->counters->touches;

	while (run->counters->touches - touches < ROUND_TOUCHES && now_ns() - start < ROUND_NS &&
	       !stream_broken(run->stream)) {
		verify_samples(run, 16);
		sleep_ms(20);
	}
}

static uint64_t free_bytes(const struct run *run)
{
	struct statvfs space;

	if (fstatvfs(run->fd, &space))
		return 0;
	return (uint64_t)space.f_bavail * space.f_frsize;
}

/* Nearly all free space, so that the successor takes the freed blocks wherever the filesystem looks first. */
static uint64_t successor_bytes(const struct run *run, uint64_t spare)
{
	uint64_t bytes = free_bytes(run);

	if (bytes < spare + LAYOUT_UNIT)
		return LAYOUT_UNIT;
	return (bytes - spare) / LAYOUT_UNIT * LAYOUT_UNIT;
}

/* Under the stream, whose writes fill the hole again at once. */
static void punch_live(struct run *run, struct successor *successor, uint64_t offset)
{
	punch_range(run, offset, LAYOUT_UNIT);
	successor_create(successor, run, run->mapping_mode == MAPPING_2M ? LAYOUT_UNIT : successor_bytes(run, SPARE));
}

/* With the filesystem full but for the hole. The NIC keeps its translations over the pause, unless invalidated. */
static void punch_crowded(struct run *run, struct successor *successor, uint64_t offset, uint64_t reserve)
{
	if (!stream_pause(run->stream))
		return;
	successor_take_reserve(run, reserve);
	punch_range(run, offset, LAYOUT_UNIT);
	successor_create(successor, run, successor_bytes(run, CROWDED_SPARE));
	successor_lend_reserve(run);
	stream_resume(run->stream);
}

static void punch(struct run *run)
{
	struct successor successor = { .fd = -1 };
	uint64_t units = run->layout.file_bytes / LAYOUT_UNIT;
	uint64_t reserve = run->mapping_mode == MAPPING_2M ? free_bytes(run) * 2 / 3 / MIB * MIB : 0;

	successor_fill_up(run, reserve ? CROWDED_ROOM : ROOM, reserve);
	successor_lend_reserve(run);
	while (run_go_on(run, successor.inherited ? run_progress(run, run->counters->operations, 8) : 0)) {
		uint64_t offset = rng_below(&run->rng, units) * LAYOUT_UNIT;

		successor_retire(&successor, run);
		successor_note_blocks(&successor, run);
		if (reserve && run->counters->operations % 2)
			punch_crowded(run, &successor, offset, reserve);
		else
			punch_live(run, &successor, offset);
		let_it_refill(run);
		successor_verify(&successor, run);
		run_count_moved(run);
	}
	run_quiesce(run);
	successor_finish(&successor, run);
	run_note(run, "%" PRIu64 " of its blocks went to the second file", successor.inherited);
}

const struct scenario scenario_punch = {
	.name = "punch",
	.what = "ranges punched and refilled, their blocks given to a second file",
	.weight = 3,
	.run = punch,
};
