/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * How much the scenarios do on this machine, and by when. Machines differ by a factor of ten and more, so there are no
 * limits that a slow one would break: goals follow the measured speed, each scenario gets a share of the time, and one
 * that did too little in its share is slow, not wrong.
 */
#ifndef DEMO_PACE_H
#define DEMO_PACE_H

#include "common/util.h"

/* What this machine takes for things that need no device. */
struct speed {
	double fault_ns;	/* an anonymous minor fault, nanoseconds */
	double copy_rate;	/* memcpy, bytes a second */
};

/* Takes some 50 ms on a fast machine. */
struct speed speed_measure(void);

/* By how much to multiply goals so that a slow machine has time for them: 1 on all but slow ones. */
double speed_scale(const struct speed *speed);

/*
 * The code of an ACK timeout, for 4.096 us * 2^code, of a wire that loses packets. It costs as much when the last
 * packet is lost, and eight of them fail a request, so that they must last longer than any fault of the device takes.
 */
uint8_t speed_ack_timeout(const struct speed *speed);

/* Time for all scenarios, divided by weight; what one does not use is left to the next. */
struct pace {
	double budget;		/* seconds, from now on */
	uint64_t start_ns;
	double weight_left;
};

/* Seconds that the next scenario, of `weight`, may spend on its goals. */
double pace_share(struct pace *pace, double weight);

/* Of the goals for a scale of 1, what a scenario has to reach to prove anything. */
#define FLOOR_SHARE 0.1

/* How much of scaled goals is the floor: all of them, if they are below it. */
double pace_floor(double scale);

#endif
