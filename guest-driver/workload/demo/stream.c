// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "stream.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define SMALL_BUFFER	(64 * KIB)
#define BATCH		32

struct write {
	const struct slot *slot;	/* NULL: free */
	version_t version;
	uint32_t epoch;
	char *buffer;
};

struct lane {
	struct write writes[MAX_DEPTH + 1];	/* the last one has the large buffer */
	uint32_t in_flight;
	bool failed;
	struct rng rng;
	_Atomic bool muted, quiet, refusals_expected;
};

struct stream {
	struct stream_config config;
	uint32_t qps;
	struct lane lanes[MAX_QPS];
	unsigned char *busy;		/* per slot */
	uint32_t *touched;		/* per mapping: epoch + 1 of its last touch */
	_Atomic uint32_t epoch;
	_Atomic uint64_t touch_unit;
	_Atomic bool pausing, idle, stopping, broken;
	char reason[160];
	pthread_t thread;
};

size_t stream_source_bytes(uint32_t qps, uint32_t depth)
{
	return qps * (depth * SMALL_BUFFER + RECORD_MAX);
}

static void broken(struct stream *stream, const char *what, uint32_t qp, const struct write_result *result)
{
	if (stream->broken)
		return;
	snprintf(stream->reason, sizeof(stream->reason), "queue pair %u: %s (%s, vendor error %u)", qp, what,
		 write_status_name(result->status), result->vendor);
	stream->broken = true;
}

static struct write *free_write(struct stream *stream, struct lane *lane, uint32_t length)
{
	uint32_t depth = stream->config.depth;

	if (lane->in_flight >= depth)
		return NULL;
	if (length > SMALL_BUFFER)
		return lane->writes[depth].slot ? NULL : &lane->writes[depth];
	for (uint32_t i = 0; i < depth; i++)
		if (!lane->writes[i].slot)
			return &lane->writes[i];
	return NULL;
}

/* Posts one record on `qp`, if there is a slot and room for it. */
static bool post_one(struct stream *stream, uint32_t qp)
{
	struct lane *lane = &stream->lanes[qp];
	struct ledger *ledger = stream->config.ledger;
	const struct slot *slot = layout_pick(ledger->layout, qp, &lane->rng);
	struct write *write;
	struct write_request request;

	if (!slot || stream->busy[slot->index])
		return false;
	write = free_write(stream, lane, slot->length);
	if (!write)
		return false;
	write->version = atomic_load(&ledger->posted[slot->index]) + 1;
	record_fill(write->buffer, ledger->run, slot, write->version);
	request = (struct write_request){
		.qp = qp,
		.length = slot->length,
		.source = write->buffer,
		.target = stream->config.target + slot->offset,
		.tag = qp * (MAX_DEPTH + 1ull) + (uint64_t)(write - lane->writes),
		.flush = stream->config.flush,
	};
	write->slot = slot;
	write->epoch = atomic_load(&stream->epoch);
	stream->busy[slot->index] = 1;
	lane->in_flight++;
	/* Before the doorbell: a reader who sees the write must see that it was posted. */
	atomic_store(&ledger->posted[slot->index], write->version);
	if (!stream->config.engine->ops->post(stream->config.engine, &request)) {
		broken(stream, "a write could not be posted", qp, &(struct write_result){ 0 });
		return false;
	}
	return true;
}

static bool post_some(struct stream *stream)
{
	bool posted = false;

	for (uint32_t qp = 0; qp < stream->qps; qp++) {
		struct lane *lane = &stream->lanes[qp];

		if (!lane->failed && !lane->muted && !stream->pausing && !stream->broken)
			posted |= post_one(stream, qp);
	}
	return posted;
}

static void count_touches(struct stream *stream, const struct write *write)
{
	uint64_t unit = stream->touch_unit;
	uint64_t last = (write->slot->offset + write->slot->length - 1) / unit;

	for (uint64_t i = write->slot->offset / unit; i <= last; i++) {
		if (stream->touched[i] == write->epoch + 1)
			continue;
		stream->touched[i] = write->epoch + 1;
		stream->config.counters->touches++;
	}
}

/*
 * The refusal itself may have been lost. Then the write in front may fail, though it was made: the ledger allows for
 * both.
 */
static bool is_refusal(const struct stream *stream, const struct write_result *result)
{
	return result->status == WRITE_REMOTE_ACCESS || (stream->config.loses && result->status == WRITE_UNANSWERED);
}

static void take_failure(struct stream *stream, uint32_t qp, const struct write_result *result)
{
	struct counters *counters = stream->config.counters;
	struct lane *lane = &stream->lanes[qp];

	counters->failed[qp]++;
	if (!lane->refusals_expected)
		broken(stream, "a write failed that should not", qp, result);
	else if (lane->failed && result->status != WRITE_FLUSHED)
		broken(stream, "a write behind a failed one was not flushed", qp, result);
	else if (!lane->failed && !is_refusal(stream, result))
		broken(stream, "a write beyond the end did not fail with remote access error", qp, result);
	if (result->status == WRITE_REMOTE_ACCESS)
		counters->refused++;
	lane->failed = true;
}

static void take_result(struct stream *stream, const struct write_result *result)
{
	struct counters *counters = stream->config.counters;
	uint32_t qp = (uint32_t)(result->tag / (MAX_DEPTH + 1));
	struct write *write;

	if (qp >= stream->qps || !(write = &stream->lanes[qp].writes[result->tag % (MAX_DEPTH + 1)])->slot) {
		broken(stream, "a completion for no write", qp, result);
		return;
	}
	if (result->status != WRITE_OK) {
		take_failure(stream, qp, result);
	} else if (stream->lanes[qp].failed) {
		broken(stream, "a write succeeded behind a failed one", qp, result);
	} else {
		atomic_store(&stream->config.ledger->acked[write->slot->index], write->version);
		counters->writes++;
		counters->bytes_written += write->slot->length;
		counters->acked[qp]++;
		count_touches(stream, write);
	}
	stream->busy[write->slot->index] = 0;
	write->slot = NULL;
	stream->lanes[qp].in_flight--;
}

/* A failed queue pair with nothing in flight must be in the error state; then it is recovered. */
static void recover(struct stream *stream, uint32_t qp)
{
	struct engine *engine = stream->config.engine;
	struct lane *lane = &stream->lanes[qp];

	if (!lane->failed || lane->in_flight || stream->broken)
		return;
	if (!engine->ops->failed(engine, qp))
		broken(stream, "not in the error state after a failed write", qp, &(struct write_result){ 0 });
	else if (!engine->ops->recover(engine, qp))
		broken(stream, "could not be recovered", qp, &(struct write_result){ 0 });
	else
		stream->config.counters->recoveries[qp]++;
	lane->failed = false;
}

static uint32_t settle(struct stream *stream)
{
	uint32_t in_flight = 0;

	for (uint32_t qp = 0; qp < stream->qps; qp++) {
		struct lane *lane = &stream->lanes[qp];

		recover(stream, qp);
		lane->quiet = lane->muted && !lane->in_flight;
		in_flight += lane->in_flight;
	}
	stream->idle = stream->pausing && !in_flight;
	return in_flight;
}

static void *stream_main(void *argument)
{
	struct stream *stream = argument;
	struct engine *engine = stream->config.engine;
	struct write_result results[BATCH];

	while (!stream->stopping) {
		bool posted = post_some(stream);
		uint32_t count = engine->ops->poll(engine, results, BATCH, posted ? 0 : 2);

		for (uint32_t i = 0; i < count; i++)
			take_result(stream, &results[i]);
		if (!settle(stream) && !posted)
			sleep_ms(1);
	}
	return NULL;
}

static void give_buffers(struct stream *stream)
{
	char *next = stream->config.source;

	for (uint32_t qp = 0; qp < stream->qps; qp++) {
		struct lane *lane = &stream->lanes[qp];

		lane->rng.state = mix64(stream->config.seed + qp + 1);
		for (uint32_t i = 0; i < stream->config.depth; i++, next += SMALL_BUFFER)
			lane->writes[i].buffer = next;
		lane->writes[stream->config.depth].buffer = next;
		next += RECORD_MAX;
	}
}

struct stream *stream_start(const struct stream_config *config)
{
	struct stream *stream = xcalloc(1, sizeof(*stream));
	const struct layout *layout = config->ledger->layout;

	stream->config = *config;
	stream->qps = layout->qps;
	stream->busy = xcalloc(layout->count, 1);
	stream->touch_unit = config->touch_unit;
	/* As many as the smallest mappings need. */
	stream->touched = xcalloc(layout->file_bytes / BLOCK, sizeof(*stream->touched));
	give_buffers(stream);
	if (pthread_create(&stream->thread, NULL, stream_main, stream))
		die("cannot start a thread");
	return stream;
}

static bool wait_for(const _Atomic bool *flag)
{
	uint64_t start = now_ns();

	while (!*flag) {
		if (now_ns() - start > HANG_NS)
			return false;
		sleep_ms(1);
	}
	return true;
}

bool stream_pause(struct stream *stream)
{
	stream->idle = false;
	stream->pausing = true;
	return wait_for(&stream->idle);
}

void stream_resume(struct stream *stream)
{
	stream->pausing = false;
}

bool stream_mute(struct stream *stream, uint32_t qp)
{
	stream->lanes[qp].quiet = false;
	stream->lanes[qp].muted = true;
	return wait_for(&stream->lanes[qp].quiet);
}

void stream_unmute(struct stream *stream, uint32_t qp)
{
	stream->lanes[qp].muted = false;
}

void stream_expect_refusals(struct stream *stream, uint32_t qp, bool expected)
{
	stream->lanes[qp].refusals_expected = expected;
}

void stream_new_epoch(struct stream *stream)
{
	stream->epoch++;
}

void stream_set_touch_unit(struct stream *stream, uint64_t bytes)
{
	stream->touch_unit = bytes;
	stream->epoch++;
}

const char *stream_broken(const struct stream *stream)
{
	return stream->broken ? stream->reason : NULL;
}

bool stream_stop(struct stream *stream)
{
	if (!stream_pause(stream))
		return false;
	stream->stopping = true;
	pthread_join(stream->thread, NULL);
	free(stream->busy);
	free(stream->touched);
	free(stream);
	return true;
}
