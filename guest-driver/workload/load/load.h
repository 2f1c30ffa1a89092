/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The load generator: RDMA requests between two areas of its own memory, as a scenario of the lab has them. Which
 * requests, in which order, comes from the host in a file, so that the model and the real guest run the same ones.
 */
#ifndef LOAD_H
#define LOAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/pairs.h"

/* A request of the file, little-endian as it stands. */
struct load_request {
	uint64_t gap_ns;	/* since the previous one; zero in a closed loop */
	uint32_t message;	/* number of the message in the target */
	uint32_t flags;
};

#define LOAD_WRITE	1u	/* into the target; else out of it */
#define LOAD_COLD	2u	/* its pages are dropped just before */

enum churn_operation { CHURN_NONE, CHURN_EVICT, CHURN_MOVE, CHURN_PROTECT };

struct load_options {
	const char *requests;	/* file */
	const char *results;	/* file */
	const char *control;	/* device, or NULL */
	uint64_t message_bytes, region_bytes;
	uint64_t queue_pairs, depth, seed;
	bool odp;		/* fill the NIC's own table where pages are present */
	bool open;		/* requests arrive by their gaps, not when there is room */
	bool warm, large_pages;
	enum churn_operation churn;
	double churn_per_second;
	uint64_t churn_pages;
};

/* What a message of the target holds, as far as is known: the value at its start and end. */
struct load_message {
	uint64_t value;
	uint32_t busy, writers;	/* requests in flight, and those of them that write */
	bool known;
};

struct load {
	const struct load_options *options;
	uint8_t *target;
	uint64_t message_count;
	struct load_message *messages;
	/* Guards `messages`. */
	pthread_mutex_t lock;
	uint64_t checked, wrong;
};

/* Totals, which precede the latencies in the results file. */
struct load_totals {
	uint64_t completed, failed, bytes, duration_ns, checked, wrong, churned, latencies;
};

void load_options_parse(struct load_options *options, int argc, char **argv);

/* Memory for the target, with pages of the size wanted. */
void load_target_open(struct load *load, const struct load_options *options);
void load_target_close(struct load *load);
/* Drops pages, with their content. */
void load_target_drop(struct load *load, uint64_t first_byte, uint64_t bytes);

/* Update what is known of a message: before its request is posted, and when it has completed. */
void load_posted(struct load *load, uint32_t message, bool write, uint64_t value);
void load_back(struct load *load, uint32_t message, bool write, uint64_t value, const uint8_t *buffer, bool success);

/* Writes `value` at the start and end of a request's bytes. */
void load_mark(uint8_t *buffer, uint64_t bytes, uint64_t value);

/* Changes the target's pages at the same time, in a thread of its own. */
struct load_churn;
struct load_churn *load_churn_start(struct load *load);
/* Returns the number of changes made. */
uint64_t load_churn_stop(struct load_churn *churn);

/* Runs all requests of the file. */
void load_run(struct load *load, const struct load_options *options);

#endif
