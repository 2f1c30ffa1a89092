// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `punch`: ranges are punched out under the stream, which fills the holes again: the device's write into a
 * hole makes the filesystem allocate a block. A second file takes the freed ones and must never change.
 */
#include "demo_heir.h"

#include <inttypes.h>
#include <sys/statvfs.h>

#define ROOM		(24 * MIB)	/* free space: the heir's and the refill's, and some for metadata */
#define SPARE		(8 * MIB)	/* what the heir leaves of it */
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

/* Nearly all that is free: so the heir takes the freed blocks wherever the filesystem begins to look. */
static uint64_t heir_bytes(const struct run *run)
{
	struct statvfs space;
	uint64_t free_bytes;

	if (fstatvfs(run->fd, &space))
		return LAYOUT_UNIT;
	free_bytes = (uint64_t)space.f_bavail * space.f_frsize;
	if (free_bytes < SPARE + LAYOUT_UNIT)
		return LAYOUT_UNIT;
	return (free_bytes - SPARE) / LAYOUT_UNIT * LAYOUT_UNIT;
}

static void punch(struct run *run)
{
	struct heir heir = { .fd = -1 };
	uint64_t units = run->layout.file_bytes / LAYOUT_UNIT;

	heir_fill_up(run, ROOM, 0);
	while (run_go_on(run, run->counters->operations >= run_goal(run, 8) && heir.inherited)) {
		uint64_t offset = rng_below(&run->rng, units) * LAYOUT_UNIT;

		heir_retire(&heir, run);
		heir_note_blocks(&heir, run);
		punch_range(run, offset, LAYOUT_UNIT);
		heir_create(&heir, run, heir_bytes(run));
		let_it_refill(run);
		heir_verify(&heir, run);
		run_count_moved(run);
	}
	run_quiesce(run);
	heir_finish(&heir, run);
	run_note(run, "%" PRIu64 " of its blocks went to the second file", heir.inherited);
}

const struct scenario scenario_punch = {
	.name = "punch",
	.what = "ranges punched and refilled, their blocks given to a second file",
	.run = punch,
};
