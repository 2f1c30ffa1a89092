/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What writes. The `verbs` engine is the demo's: RDMA WRITEs on reliable connections in loopback on one
 * device. The `cpu` engine makes the same writes with the processor's own stores; it replaces the device
 * where there is none, and tests the checker itself: with a correct engine every scenario must pass, and with a
 * sabotaged one it must fail.
 */
#ifndef DEMO_ENGINE_H
#define DEMO_ENGINE_H

#include "common/util.h"

/* The numbers of ibv_wc_status; all an engine may report. */
enum write_status {
	WRITE_OK = 0,
	WRITE_FLUSHED = 5,
	WRITE_REMOTE_ACCESS = 10,
	WRITE_UNANSWERED = 12,	/* sent again and again: a peer that refused one is silent from then on */
};

struct write_request {
	uint32_t qp;
	uint32_t length;
	const void *source;
	void *target;
	uint64_t tag;		/* comes back in the completion */
	bool flush;		/* it completes when the record is durable, as far as engine_durability() says */
};

struct write_result {
	uint64_t tag;
	uint32_t status;	/* enum write_status or another ibv_wc_status */
	uint32_t vendor;	/* the device's own reason, zero if none */
};

/* How the device finds the memory; the demo's modes. */
enum translation {
	TRANSLATE_PASID,	/* in the process' address space, by the IOMMU */
	TRANSLATE_ODP,		/* by the device's own table, which its driver fills */
	TRANSLATE_PINNED,	/* pages that must not move: refused for DAX files */
	TRANSLATE_CPU,		/* no device */
	TRANSLATE_REMOTE,	/* as PASID, and what writes is another device, over a wire */
	TRANSLATE_LOSSY,	/* the same, over a wire that loses packets */
	TRANSLATIONS,
};

/* The modes' names, by enum translation; options.c. */
extern const char *const translation_names[TRANSLATIONS];

struct engine_config {
	const char *device;	/* verbs: name of the device, NULL for the first */
	const char *peer;	/* verbs: the device that writes, over a wire; NULL for the same */
	enum translation translation;	/* verbs: not TRANSLATE_PINNED or TRANSLATE_CPU */
	bool explicit_mr;	/* verbs: register the ranges instead of the whole address space */
	uint32_t qps;
	uint32_t depth;		/* writes in flight per queue pair */
	uint8_t ack_timeout;	/* verbs, over a wire: a code, for 4.096 us * 2^code; 0 for the usual one */
	uint32_t drop_one_in;	/* cpu: acknowledge one write of so many without making it; 0 = never */
	/* The ranges that will be written and read: only an explicit MR needs them. */
	void *target;
	uint64_t target_bytes;
	void *source;
	uint64_t source_bytes;
};

struct engine {
	const struct engine_ops *ops;
};

struct engine_ops {
	void (*close)(struct engine *engine);
	/* Posts one write; false if the queue pair cannot take it (never with `depth` or fewer in flight). */
	bool (*post)(struct engine *engine, const struct write_request *request);
	/* Takes up to `max` completions; waits up to `wait_ms` for the first. */
	uint32_t (*poll)(struct engine *engine, struct write_result *results, uint32_t max,
			 unsigned int wait_ms);
	/* What a flush makes of a record, in words, or NULL: requests must not ask for it. May be missing. */
	const char *(*durability)(struct engine *engine);
	/* Whether the queue pair is in the error state. */
	bool (*failed)(struct engine *engine, uint32_t qp);
	/* Takes a queue pair with nothing in flight out of the error state. */
	bool (*recover)(struct engine *engine, uint32_t qp);
};

/* Opens an engine, or exits with a reason. */
struct engine *engine_open_verbs(const struct engine_config *config);
struct engine *engine_open_cpu(const struct engine_config *config);

static inline const char *engine_durability(struct engine *engine)
{
	return engine->ops->durability ? engine->ops->durability(engine) : NULL;
}

const char *write_status_name(uint32_t status);

#endif
