// SPDX-License-Identifier: Apache-2.0 OR MIT
/* `steady`: nothing moves. The baseline: each page faults once, and then the device has it. */
#include "run.h"

/* That of the queue pair that wrote least. */
static double progress(const struct run *run)
{
	uint64_t least = run->counters->acked[0];

	for (uint32_t qp = 1; qp < run->options->qps; qp++)
		if (run->counters->acked[qp] < least)
			least = run->counters->acked[qp];
	return run_progress(run, least, 50);
}

static void steady(struct run *run)
{
	while (run_go_on(run, progress(run))) {
		verify_samples(run, 64);
		sleep_ms(50);
	}
}

const struct scenario scenario_steady = {
	.name = "steady",
	.what = "no block moves: the baseline",
	.weight = 1,
	.run = steady,
};
