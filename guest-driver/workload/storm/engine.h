/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What moves the data. The `verbs` engine posts to RC queue pairs in loopback on one device; the `cpu` engine has
 * the kernel copy inside this process, with EFAULT where the NIC would be refused: so the storms and their checks can
 * be tested without a NIC.
 */
#ifndef STORM_ENGINE_H
#define STORM_ENGINE_H

#include "common/util.h"

#define LANES		4u	/* pairs of queue pairs */
#define LANE_DEPTH	4u	/* operations in flight on each */

enum storm_verb {
	VERB_WRITE,		/* local to remote */
	VERB_READ,		/* remote to local */
	VERB_SWAP,		/* COMPARE_SWAP of 8 bytes; what they were goes to local */
	VERB_ADD,		/* FETCH_ADD, the same */
};

struct storm_request {
	enum storm_verb verb;
	uint32_t lane;
	uint32_t length;
	void *local, *remote;
	uint64_t compare, swap;	/* of VERB_SWAP; VERB_ADD adds `swap` */
	bool whole;		/* by the region that is the whole address space */
	uint64_t tag;
};

enum storm_status {
	STATUS_DONE,
	STATUS_REFUSED,		/* remote access error, because the page was refused */
	STATUS_FLUSHED,		/* behind a failed one */
	STATUS_LOST,		/* the link has lost whether it was done or refused */
	STATUS_WRONG,		/* anything else: no storm excuses it */
};

struct storm_result {
	uint64_t tag;
	enum storm_status status;
	const char *text;	/* what the device said */
	uint32_t vendor;
};

struct storm_engine {
	void (*close)(struct storm_engine *engine);
	void (*post)(struct storm_engine *engine, const struct storm_request *request);
	uint32_t (*poll)(struct storm_engine *engine, struct storm_result *results, uint32_t max,
			 unsigned int wait_ms);
	/* Whether a lane is in the error state, as it must be behind a failure; and back to work. */
	bool (*failed)(struct storm_engine *engine, uint32_t lane);
	bool (*recover)(struct storm_engine *engine, uint32_t lane);
};

/* A range of addresses that gets an on-demand region of its own. */
struct storm_range {
	void *start;
	uint64_t bytes;
};

#define MAX_RANGES	2

struct storm_engine *storm_engine_verbs(const char *device, const struct storm_range *ranges, uint32_t count);
struct storm_engine *storm_engine_cpu(void);

#endif
