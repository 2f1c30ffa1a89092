/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* A storm: an arena, the traffic, and one or more disturbers, each a thread, until all have reached their goals. */
#ifndef STORM_RUN_H
#define STORM_RUN_H

#include "traffic.h"

struct storm;
struct disturber;

/* A disturber at work. */
struct disturbance {
	const struct disturber *disturber;
	struct storm *storm;
	struct rng rng;
	_Atomic uint64_t count;		/* disturbances done */
	_Atomic uint64_t effect;	/* their effect, in the disturber's own unit */
	void *state;
	pthread_t thread;
};

struct disturber {
	const char *name;
	const char *what;
	const char *unit;	/* of disturbance.effect, which must not stay zero */
	uint32_t goal;		/* disturbances, at least */
	bool needs_file;
	/* All but `disturb` may be NULL. */
	void (*prepare)(struct disturbance *self);	/* before the traffic starts */
	void (*disturb)(struct disturbance *self);
	void (*finish)(struct disturbance *self);	/* after it has ended */
};

extern const struct disturber disturber_dontneed, disturber_mremap, disturber_mprotect, disturber_fork,
	disturber_thp, disturber_migrate, disturber_swap, disturber_ksm, disturber_truncate;

struct storm_options {
	const char *device;
	bool cpu_engine;
	bool sabotage;
	double scale;		/* of every goal */
	uint64_t seed;
	struct filesystem fs;
};

#define MAX_DISTURBERS 16

struct storm {
	const struct storm_options *options;
	const char *name;
	bool alone;		/* one disturber: no other changes the process' mappings */
	struct arena arena;
	struct tally tally;
	struct traffic *traffic;
	uint32_t count;
	struct disturbance disturbances[MAX_DISTURBERS];
	_Atomic bool ending;
};

/* Runs a storm and prints its result in one line; false if anything was wrong. */
bool storm_run(const struct storm_options *options, const char *name, const struct disturber *const *disturbers,
	       uint32_t count);

/* Waits until so many more operations have completed, anywhere or in a range of blocks. */
void storm_await(struct storm *storm, uint64_t operations);
void storm_await_at(struct storm *storm, uint32_t first, uint32_t count, uint64_t operations);

/* Reports something wrong that is not the traffic's, and fails the storm. */
#define storm_complain(storm, ...) traffic_complain(&(storm)->tally, __VA_ARGS__)

#endif
