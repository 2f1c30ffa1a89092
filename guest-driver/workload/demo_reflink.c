// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `reflink-cow`: reflink copies are taken again and again. Each shares all blocks with the file, so the next
 * write to any of them goes to a new block: the file's data moves, and the copy keeps the old.
 */
#include "demo_snapshot.h"

#define LIVE_COPIES	3
#define ROUND_NS	1500000000ull

static bool done(const struct run *run)
{
	/* Every block that moves, and every mapping written anew, is a fault: well above the thousand. */
	return run->counters->blocks_moved >= run_goal(run, 1500) &&
	       run->counters->touches >= run_goal(run, 1300) &&
	       run->counters->operations >= run_goal(run, LIVE_COPIES + 1);
}

static void take_copy(struct run *run, struct snapshot *copy)
{
	snapshot_begin(copy, run, "copy", run->counters->operations, 0, run->layout.file_bytes);
	fs_clone(copy->fd, run->fd);
	stream_new_epoch(run->stream);
	snapshot_end(copy, run);
	run->counters->operations++;
}

/* Until a good part of the file, or enough small pages of it, lies elsewhere than the copy. */
static void let_it_write(struct run *run)
{
	uint64_t start = now_ns(), touches = run->counters->touches;
	uint64_t enough = run->mode == MAPPING_2M ? run->layout.file_bytes / HUGE_BLOCK * 7 / 8 : 300;

	while (run->counters->touches - touches < enough && now_ns() - start < ROUND_NS &&
	       !stream_broken(run->stream))
		sleep_ms(5);
}

static void reflink_cow(struct run *run)
{
	struct snapshot copies[LIVE_COPIES];

	for (int i = 0; i < LIVE_COPIES; i++)
		copies[i].fd = -1;
	for (unsigned int i = 0; run_go_on(run, done(run)); i = (i + 1) % LIVE_COPIES) {
		snapshot_retire(&copies[i], run);
		take_copy(run, &copies[i]);
		let_it_write(run);
		run_count_moved(run);
	}
	run_quiesce(run);
	for (int i = 0; i < LIVE_COPIES; i++)
		snapshot_retire(&copies[i], run);
}

const struct scenario scenario_reflink_cow = {
	.name = "reflink-cow",
	.what = "reflink copies make every write relocate its block",
	.run = reflink_cow,
};
