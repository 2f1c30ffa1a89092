// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `reflink-cow`: reflink copies are taken again and again. Each shares all blocks with the file, so the next
 * write to any of them goes to a new block: the file's data moves, and the copy keeps the old.
 *
 * With 2 MiB mappings there are two halves. First the file asks for copy-on-write in units of 2 MiB: each
 * fault then moves 512 blocks, and the mappings stay large. Then it no longer asks, and the filesystem does
 * what it does by itself: the first write after a copy breaks the large mapping, and blocks move one by one.
 */
#include "snapshot.h"

#include <math.h>

#define LIVE_COPIES	3
#define LARGE_ROUNDS	6	/* copies with large mappings */
#define SMALL_ROUNDS	8	/* and then with small ones, at least */
#define ENOUGH		300	/* small mappings written anew before the next copy is taken */
#define ROUND_NS	1500000000ull

/* Every block that moves, and every mapping written anew, is a fault: well above the thousand. */
static double progress(const struct run *run, uint64_t round, uint64_t rounds)
{
	double moved = fmin(run_progress(run, run->counters->blocks_moved, 1500),
			    run_progress(run, run->counters->touches, 1300));
	double taken = run_progress(run, run->counters->operations, LIVE_COPIES + 1);

	if (rounds)
		taken = fmin(taken, (double)round / (double)rounds);
	return fmin(moved, taken);
}

static void take_copy(struct run *run, struct snapshot *copy)
{
	snapshot_begin(copy, run, "copy", run->counters->operations, 0, run->layout.file_bytes);
	fs_clone(copy->fd, run->fd);
	stream_new_epoch(run->stream);
	snapshot_end(copy, run);
	run->counters->operations++;
}

/* Until enough of the file lies elsewhere than the copy. */
static void let_it_write(struct run *run, bool large)
{
	uint64_t start = now_ns(), touches = run->counters->touches;
	uint64_t enough = large ? run->layout.file_bytes / HUGE_BLOCK * 3 / 4 : ENOUGH;

	while (run->counters->touches - touches < enough && now_ns() - start < ROUND_NS &&
	       !stream_broken(run->stream))
		sleep_ms(5);
}

static void reflink_cow(struct run *run)
{
	struct snapshot copies[LIVE_COPIES];
	uint64_t large = run->mapping_mode == MAPPING_2M ? run_goal(run, LARGE_ROUNDS) : 0;
	uint64_t rounds = large ? large + run_goal(run, SMALL_ROUNDS) : 0;

	for (int i = 0; i < LIVE_COPIES; i++)
		copies[i].fd = -1;
	for (uint64_t round = 0; run_go_on(run, progress(run, round, rounds)); round++) {
		struct snapshot *copy = &copies[round % LIVE_COPIES];

		if (large && round == large) {
			fs_unhint_copy_on_write(run->fd);
			stream_set_touch_unit(run->stream, BLOCK);
		}
		snapshot_retire(copy, run);
		take_copy(run, copy);
		let_it_write(run, round < large);
		run_count_moved(run);
	}
	run_quiesce(run);
	for (int i = 0; i < LIVE_COPIES; i++)
		snapshot_retire(&copies[i], run);
}

const struct scenario scenario_reflink_cow = {
	.name = "reflink-cow",
	.what = "reflink copies make every write relocate its block",
	.weight = 3,
	.run = reflink_cow,
};
