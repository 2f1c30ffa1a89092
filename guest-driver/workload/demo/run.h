/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* One run of a scenario: the file, the stream, what is known of the file, and the verdict. */
#ifndef DEMO_RUN_H
#define DEMO_RUN_H

#include "common/fs.h"
#include "control.h"
#include "extents.h"
#include "options.h"
#include "pace.h"
#include "stream.h"

#define FILE_NAME	"target"
#define NO_TAIL		0ull

struct run {
	const struct options *options;
	struct control *control;
	struct counters *counters;	/* shared with forked children */
	enum translation translation;
	enum mapping_mode mapping_mode;
	uint64_t id;			/* stamped into every record */
	uint64_t start_ns;
	double share;			/* seconds that it may spend on its goals */
	double progress;		/* how much of them it has reached, up to 1 */
	struct rng rng;

	struct layout layout;
	struct ledger ledger;
	int fd;				/* of the file */
	char *mapping;
	struct block_map last_map;	/* for counting moved blocks */
	void *source;
	struct engine *engine;
	struct stream *stream;

	bool failed;
	bool slow;			/* stopped before it had done enough to prove anything */
	char reason[400];		/* the first failure, how far a slow one came, or a remark */
};

struct scenario {
	const char *name;
	const char *what;
	/* Share of the file, in quarters, that belongs to the last queue pair alone. */
	unsigned int tail_quarters;
	/* No stream: the scenario makes its own. */
	bool bare;
	/* A record is acknowledged when it is durable, if the engine can do that. */
	bool flush;
	double weight;			/* how long it takes, relative to the others */
	void (*run)(struct run *run);
};

extern const struct scenario scenario_steady, scenario_reflink_cow, scenario_exchange, scenario_punch,
	scenario_truncate, scenario_fsync, scenario_kill, scenario_pinned;

/* How the control channel names a size of mappings. */
const char *mapping_name(enum mapping_mode mapping);

/* With pinned pages every scenario is a single refused pin: its weight. */
#define WEIGHT_REFUSAL 0.1

/*
 * Runs one scenario in one mode, from a new file to the verified end; `share` is what it may spend on its goals, in
 * seconds. In pinned mode pinned_refusal() runs in place of every scenario but scenario_pinned.
 */
enum verdict run_scenario(const struct options *options, struct control *control, const struct scenario *scenario,
			  enum translation translation, enum mapping_mode mapping, double share);

/* Bytes of the file that one fault of the device makes reachable, if the mappings are as large as they can be. */
uint64_t run_fault_unit(const struct run *run);

/* pinned.c: the kernel refuses to pin the mapped file. */
void pinned_refusal(struct run *run);

/* The first failure is kept, and ends the scenario's loop. */
void run_fail(struct run *run, const char *fmt, ...) PRINTF(2, 3);

/* A remark for the report, if nothing failed. */
void run_note(struct run *run, const char *fmt, ...) PRINTF(2, 3);

/*
 * Whether a scenario's loop goes on: until the least time has passed and `progress`, the fraction of its goals that is
 * reached, is 1. The loop ends early when its share of the time is spent; it is slow if it is below the floor then.
 */
bool run_go_on(struct run *run, double progress);

/* The fraction of `goal`, given for a scale of 1, that `done` is; at most 1. */
double run_progress(const struct run *run, uint64_t done, uint64_t goal);

/* `goal`, given for a scale of 1, at the run's scale; at least 1. */
uint64_t run_goal(const struct run *run, uint64_t goal);

/* Opens the engine the options ask for, on the mapped file. */
struct engine *run_open_engine(struct run *run);
struct stream_config run_stream_config(struct run *run);

/* Adds the blocks of the file that moved since the last call. */
void run_count_moved(struct run *run);

/* Pauses the stream and waits for what is in flight; exits if that never completes. */
void run_quiesce(struct run *run);

/* -- verify.c: reading back; each adds to bytes_verified and bytes_wrong, and fails the run -- */

/* The whole file against the ledger, through `fd`. The stream must be quiet. */
void verify_file(struct run *run, int fd);

/* The slots of a range of it. */
void verify_range(struct run *run, int fd, uint64_t offset, uint64_t length);

/* Slots of a copy, or of an exchanged twin, against what the file held at that moment. */
void verify_moment(struct run *run, int fd, const struct moment *moment, const char *what);

/* Some slots with no write in flight, at random, while the stream runs. */
void verify_samples(struct run *run, uint32_t samples);

/* Fills [0, bytes) of a file with a pattern of its own, and looks whether it is still there. */
void fill_pattern(int fd, uint64_t bytes, uint64_t seed);
void verify_pattern(struct run *run, int fd, uint64_t bytes, uint64_t seed, const char *what);

/* Writes every slot of a range as version `version`. */
void fill_records(struct run *run, int fd, uint64_t offset, uint64_t length, version_t version);

/* Flips one bit at a random place of [offset, offset + length) of a file, if that is the sabotage asked for. */
void sabotage_file(struct run *run, enum sabotage kind, int fd, uint64_t offset, uint64_t length);

#endif
