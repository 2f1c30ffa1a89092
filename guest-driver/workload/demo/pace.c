// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "pace.h"

#include "common/small_pages.h"

#include <string.h>
#include <sys/mman.h>

#define PROBED		(16 * MIB)
/*
 * A minor fault on CPUs that QEMU emulates, on the machine of docs/measurements.md. Goals are for that machine; one
 * that is half as fast still reaches them in its time.
 */
#define REFERENCE_NS	5000.0
#define SLOWEST_SCALE	0.2
/*
 * 0.3 to 8.6 s. A fault of the device takes as long as some hundred of the processor's, and the longest that were seen,
 * of `reflink-cow` on a busy machine, as long as 45,000: eight timeouts are to be nine times as long.
 */
#define ACK_TIMEOUT_LEAST	16
#define ACK_TIMEOUT_MOST	21
#define ACK_TIMEOUT_FAULTS	50000
/* The rest is for making files and reading them back. */
#define LOOP_SHARE	0.6

static char *probe_area(void)
{
	char *area = mmap(NULL, PROBED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (area == MAP_FAILED || ask_for_small_pages(area, PROBED))
		die("out of memory for measuring the machine's speed");
	return area;
}

/* The best of three: other work on the machine is not its speed. */
struct speed speed_measure(void)
{
	struct speed best = { 0 };

	for (int round = 0; round < 3; round++) {
		char *area = probe_area();
		uint64_t start = now_ns();
		double ns, rate;

		for (uint64_t at = 0; at < PROBED; at += BLOCK)
			*(volatile char *)(area + at) = 1;
		ns = (double)(now_ns() - start) / (double)(PROBED / BLOCK);
		start = now_ns();
		memcpy(area, area + PROBED / 2, PROBED / 2);
		rate = (double)(PROBED / 2) / ((double)(now_ns() - start + 1) / 1e9);
		munmap(area, PROBED);
		if (!round || ns < best.fault_ns)
			best.fault_ns = ns;
		if (rate > best.copy_rate)
			best.copy_rate = rate;
	}
	return best;
}

double speed_scale(const struct speed *speed)
{
	double scale = 2 * REFERENCE_NS / speed->fault_ns;

	return scale > 1 ? 1 : scale < SLOWEST_SCALE ? SLOWEST_SCALE : scale;
}

uint8_t speed_ack_timeout(const struct speed *speed)
{
	uint8_t code = ACK_TIMEOUT_LEAST;

	while (code < ACK_TIMEOUT_MOST && 4096.0 * (double)(1u << code) < ACK_TIMEOUT_FAULTS * speed->fault_ns)
		code++;
	return code;
}

double pace_share(struct pace *pace, double weight)
{
	double left = pace->budget - seconds_since(pace->start_ns);
	double share = left > 0 ? left * weight / pace->weight_left * LOOP_SHARE : 0;

	pace->weight_left -= weight;
	return share;
}

double pace_floor(double scale)
{
	return scale > FLOOR_SHARE ? FLOOR_SHARE / scale : 1;
}
