// SPDX-License-Identifier: Apache-2.0 OR MIT
/* `steady`: nothing moves. The baseline: each page faults once, and then the device has it. */
#include "demo_run.h"

static bool every_queue_pair_wrote(const struct run *run, uint64_t writes)
{
	for (uint32_t qp = 0; qp < run->options->qps; qp++)
		if (run->counters->acked[qp] < writes)
			return false;
	return true;
}

static void steady(struct run *run)
{
	while (run_go_on(run, every_queue_pair_wrote(run, run_goal(run, 50)))) {
		verify_samples(run, 64);
		sleep_ms(50);
	}
}

const struct scenario scenario_steady = {
	.name = "steady",
	.what = "no block moves: the baseline",
	.run = steady,
};
