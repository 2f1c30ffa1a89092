/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef DEMO_OPTIONS_H
#define DEMO_OPTIONS_H

#include "engine.h"
#include "common/fs.h"

/* What is broken on purpose, to see that the checker notices. */
enum sabotage {
	SABOTAGE_NONE,
	SABOTAGE_FLIP,	/* one bit of the file */
	SABOTAGE_DROP,	/* a write that is acknowledged but not made (cpu engine) */
	SABOTAGE_COPY,	/* one bit of a reflink copy or of an exchanged twin */
	SABOTAGE_SUCCESSOR,	/* one bit of the file that took freed blocks */
};

#define MAX_SCENARIOS 16

/* RDMA devices: whose memory is written, and what writes it over a wire. NULL: the first device, and the same. */
struct device_pair {
	const char *target, *writer;
};

struct options {
	bool cpu_engine;
	struct device_pair devices[TRANSLATIONS];
	bool explicit_mr;
	struct filesystem fs;
	bool mkfs;		/* false: fs.mount is used as it is */
	uint64_t file_bytes;
	uint32_t qps, depth;
	uint8_t ack_timeout;	/* of mode lossy; 0: by this machine's speed */
	const char *scenarios[MAX_SCENARIOS];
	uint32_t scenario_count;	/* 0: all */
	unsigned int modes;	/* bits by enum translation */
	bool wires_once;	/* with mappings of one size only, to save time: nothing was said of modes */
	bool mapping_4k, mapping_2m;
	double seconds;		/* each scenario runs at least so long */
	double budget;		/* for all of them together */
	double scale;		/* multiplies the goals; 0: by this machine's speed */
	const char *control;	/* NULL: none */
	uint64_t seed;
	enum sabotage sabotage;
	bool list;
};

/* Fills in defaults and the command line; ends the program at --help or with a reason. */
void options_parse(struct options *options, int argc, char **argv);

#endif
