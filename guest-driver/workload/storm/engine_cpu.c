// SPDX-License-Identifier: Apache-2.0 OR MIT
/* Operations are executed when they are posted; those behind a failed one are flushed. */
#define _GNU_SOURCE
#include "engine.h"

#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define RING	(2 * LANES * LANE_DEPTH)

struct cpu_engine {
	struct storm_engine base;
	bool failed[LANES];
	struct storm_result done[RING];
	uint32_t head, tail;
};

static bool copy(void *to, const void *from, uint32_t length, bool write)
{
	struct iovec local = { .iov_base = write ? (void *)from : to, .iov_len = length };
	struct iovec remote = { .iov_base = write ? to : (void *)from, .iov_len = length };
	ssize_t done = write ? process_vm_writev(getpid(), &local, 1, &remote, 1, 0) :
			       process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

	return done == (ssize_t)length;
}

static bool perform(const struct storm_request *request)
{
	uint64_t old, new;

	if (request->verb == VERB_WRITE)
		return copy(request->remote, request->local, request->length, true);
	if (request->verb == VERB_READ)
		return copy(request->local, request->remote, request->length, false);
	if (!copy(&old, request->remote, 8, false))
		return false;
	new = request->verb == VERB_ADD ? old + request->swap : request->swap;
	if ((request->verb == VERB_ADD || old == request->compare) && !copy(request->remote, &new, 8, true))
		return false;
	memcpy(request->local, &old, 8);
	return true;
}

static void cpu_post(struct storm_engine *base, const struct storm_request *request)
{
	struct cpu_engine *engine = (struct cpu_engine *)base;
	struct storm_result *result = &engine->done[engine->head++ % RING];
	bool *failed = &engine->failed[request->lane];

	*result = (struct storm_result){ .tag = request->tag, .text = "copied by the kernel" };
	if (*failed)
		result->status = STATUS_FLUSHED;
	else if (!perform(request))
		result->status = STATUS_REFUSED;
	*failed |= result->status != STATUS_DONE;
}

static uint32_t cpu_poll(struct storm_engine *base, struct storm_result *results, uint32_t max,
			 unsigned int wait_ms)
{
	struct cpu_engine *engine = (struct cpu_engine *)base;
	uint32_t count = 0;

	for (; count < max && engine->tail != engine->head; count++)
		results[count] = engine->done[engine->tail++ % RING];
	if (!count)
		sleep_ms(wait_ms);
	return count;
}

static bool cpu_failed(struct storm_engine *base, uint32_t lane)
{
	return ((struct cpu_engine *)base)->failed[lane];
}

static bool cpu_recover(struct storm_engine *base, uint32_t lane)
{
	((struct cpu_engine *)base)->failed[lane] = false;
	return true;
}

static void cpu_close(struct storm_engine *base)
{
	free(base);
}

struct storm_engine *storm_engine_cpu(void)
{
	struct cpu_engine *engine = xcalloc(1, sizeof(*engine));

	engine->base = (struct storm_engine){
		.close = cpu_close,
		.post = cpu_post,
		.poll = cpu_poll,
		.failed = cpu_failed,
		.recover = cpu_recover,
	};
	return &engine->base;
}
