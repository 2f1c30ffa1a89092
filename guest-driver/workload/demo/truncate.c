// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `truncate`: the tail is cut under the stream. The last queue pair owns the tail: its requests beyond the
 * end must complete with remote access error, the ones behind them flushed, the queue pair in the error
 * state; it is recovered and fails again, on and on, while a second file takes the freed blocks. The other
 * queue pairs write below the cut and must not notice. Then the file grows again, and the tail is a hole.
 */
#include "successor.h"

#include <inttypes.h>
#include <sys/stat.h>

#define ROOM		(3 * MIB)	/* free space: less than the smallest cut, so that a successor must inherit */
#define REFUSALS	3	/* per cut: the queue pair fails and is recovered at least so often */

static uint32_t tail_qp(const struct run *run)
{
	return run->options->qps - 1;
}

/* Waits until `*counter` is at least `value`; fails the run if it never is. */
static void await(struct run *run, const _Atomic uint64_t *counter, uint64_t value, const char *what)
{
	uint64_t start = now_ns();

	while (*counter < value && !stream_broken(run->stream)) {
		if (now_ns() - start > HANG_NS) {
			run_fail(run, "%s", what);
			return;
		}
		sleep_ms(2);
	}
}

static void others_go_on(struct run *run)
{
	uint64_t acked[MAX_QPS];

	for (uint32_t qp = 0; qp < tail_qp(run); qp++)
		acked[qp] = run->counters->acked[qp];
	for (uint32_t qp = 0; qp < tail_qp(run); qp++)
		await(run, &run->counters->acked[qp], acked[qp] + 5, "a queue pair below the cut makes no progress");
	for (uint32_t qp = 0; qp < tail_qp(run); qp++)
		if (run->counters->failed[qp])
			run_fail(run, "queue pair %u failed, which writes below the cut", qp);
}

static void check_size(struct run *run, uint64_t bytes)
{
	struct stat info;

	if (fstat(run->fd, &info) || (uint64_t)info.st_size != bytes)
		run_fail(run, "the file has %lld bytes, not %" PRIu64 ": a write beyond its end made it grow",
			 (long long)info.st_size, bytes);
}

/* One cut, from the truncation to the tail grown back. */
static void cut_and_grow(struct run *run, struct successor *successor, uint64_t cut)
{
	uint64_t bytes = run->layout.file_bytes, recoveries;
	struct moment moment;

	successor_note_blocks(successor, run);
	stream_expect_refusals(run->stream, tail_qp(run), true);
	moment_begin(&moment, &run->ledger, cut, bytes - cut);
	fs_truncate(run->fd, cut);
	recoveries = run->counters->recoveries[tail_qp(run)];
	successor_create(successor, run, bytes - cut);
	await(run, &run->counters->recoveries[tail_qp(run)], recoveries + REFUSALS,
	      "requests beyond the end do not fail");
	others_go_on(run);
	successor_verify(successor, run);

	if (!stream_mute(run->stream, tail_qp(run)))
		run_fail(run, "requests beyond the end never completed");
	check_size(run, cut);
	stream_expect_refusals(run->stream, tail_qp(run), false);
	successor_lend_reserve(run);
	fs_truncate(run->fd, bytes);
	moment_end(&moment, &run->ledger);
	/* Nothing was in flight while the file grew: the tail holds zeros and nothing else. */
	ledger_reset(&run->ledger, &moment, VERSION_ZEROS);
	moment_free(&moment);
	verify_range(run, run->fd, cut, bytes - cut);
	stream_new_epoch(run->stream);
	stream_unmute(run->stream, tail_qp(run));
}

static void truncate_tail(struct run *run)
{
	struct successor successor = { .fd = -1 };
	uint64_t tail_units = run->layout.file_bytes / 4 / LAYOUT_UNIT;

	successor_fill_up(run, ROOM, run->layout.file_bytes / 4);
	while (run_go_on(run, successor.inherited ? run_progress(run, run->counters->operations, 4) : 0)) {
		uint64_t units = 1 + rng_below(&run->rng, tail_units), written;

		cut_and_grow(run, &successor, run->layout.file_bytes - units * LAYOUT_UNIT);
		written = run->counters->acked[tail_qp(run)];
		await(run, &run->counters->acked[tail_qp(run)], written + 20, "the tail is not written again");
		successor_retire(&successor, run);
		successor_take_reserve(run, run->layout.file_bytes / 4);
		run->counters->operations++;
		run_count_moved(run);
	}
	run_quiesce(run);
	successor_finish(&successor, run);
	run_note(run, "%" PRIu64 " requests refused with remote access error, %" PRIu64
		 " recoveries; %" PRIu64 " of its blocks went to the second file",
		 run->counters->refused, run->counters->recoveries[tail_qp(run)], successor.inherited);
}

const struct scenario scenario_truncate = {
	.name = "truncate",
	.what = "the tail cut under DMA, its blocks given to a second file",
	.tail_quarters = 1,
	.weight = 3,
	.run = truncate_tail,
};
