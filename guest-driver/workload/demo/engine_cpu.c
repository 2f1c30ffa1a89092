// SPDX-License-Identifier: Apache-2.0 OR MIT
/* The stand-in engine: one thread per queue pair copies in order. A SIGBUS is its remote access error. */
#define _GNU_SOURCE
#include "engine.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct cpu_qp {
	struct cpu_engine *engine;
	pthread_t thread;
	struct write_request *queue;	/* ring of depth + 1 */
	uint32_t head, tail;
	bool failed;
	uint64_t made;
};

struct cpu_engine {
	struct engine base;
	struct engine_config config;
	struct cpu_qp *qps;
	struct write_result *done;	/* ring */
	uint32_t done_size, done_head, done_tail;
	bool closing;
	pthread_mutex_t lock;
	pthread_cond_t work, completed;
};

static __thread sigjmp_buf bus_error;
static __thread volatile sig_atomic_t copying;

static void on_bus_error(int signal)
{
	(void)signal;
	if (copying)
		siglongjmp(bus_error, 1);
	abort();
}

/*
 * Copies; false if the target does not exist (any more). By aligned words, not memcpy(): the page may be
 * write-protected at any instant, and the checker attributes whole words.
 */
static bool copy(const struct write_request *request)
{
	volatile uint64_t *to = request->target;
	const uint64_t *from = request->source;

	if (sigsetjmp(bus_error, 1)) {
		copying = 0;
		return false;
	}
	copying = 1;
	for (uint32_t i = 0; i < request->length / 8; i++)
		to[i] = from[i];
	copying = 0;
	return true;
}

static uint32_t perform(struct cpu_qp *qp, const struct write_request *request)
{
	uint32_t one_in = qp->engine->config.drop_one_in;

	if (one_in && ++qp->made % one_in == 0)
		return WRITE_OK;
	return copy(request) ? WRITE_OK : WRITE_REMOTE_ACCESS;
}

static void *worker(void *argument)
{
	struct cpu_qp *qp = argument;
	struct cpu_engine *engine = qp->engine;

	pthread_mutex_lock(&engine->lock);
	for (;;) {
		struct write_result result;
		struct write_request request;

		while (qp->head == qp->tail && !engine->closing)
			pthread_cond_wait(&engine->work, &engine->lock);
		if (engine->closing)
			break;
		request = qp->queue[qp->head];
		result = (struct write_result){ .tag = request.tag, .status = WRITE_FLUSHED };
		if (!qp->failed) {
			pthread_mutex_unlock(&engine->lock);
			result.status = perform(qp, &request);
			pthread_mutex_lock(&engine->lock);
			qp->failed = result.status != WRITE_OK;
		}
		qp->head = (qp->head + 1) % (engine->config.depth + 1);
		engine->done[engine->done_tail] = result;
		engine->done_tail = (engine->done_tail + 1) % engine->done_size;
		pthread_cond_signal(&engine->completed);
	}
	pthread_mutex_unlock(&engine->lock);
	return NULL;
}

static struct cpu_engine *cpu_engine(struct engine *engine)
{
	return (struct cpu_engine *)engine;
}

static bool cpu_post(struct engine *base, const struct write_request *request)
{
	struct cpu_engine *engine = cpu_engine(base);
	struct cpu_qp *qp = &engine->qps[request->qp];
	uint32_t next;
	bool room;

	pthread_mutex_lock(&engine->lock);
	next = (qp->tail + 1) % (engine->config.depth + 1);
	room = next != qp->head;
	if (room) {
		qp->queue[qp->tail] = *request;
		qp->tail = next;
		pthread_cond_broadcast(&engine->work);
	}
	pthread_mutex_unlock(&engine->lock);
	return room;
}

static uint32_t cpu_poll(struct engine *base, struct write_result *results, uint32_t max,
			 unsigned int wait_ms)
{
	struct cpu_engine *engine = cpu_engine(base);
	struct timespec until;
	uint32_t count = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += wait_ms * 1000000l;
	until.tv_sec += until.tv_nsec / 1000000000l;
	until.tv_nsec %= 1000000000l;
	pthread_mutex_lock(&engine->lock);
	while (wait_ms && engine->done_head == engine->done_tail)
		if (pthread_cond_timedwait(&engine->completed, &engine->lock, &until))
			break;
	while (count < max && engine->done_head != engine->done_tail) {
		results[count++] = engine->done[engine->done_head];
		engine->done_head = (engine->done_head + 1) % engine->done_size;
	}
	pthread_mutex_unlock(&engine->lock);
	return count;
}

static bool cpu_failed(struct engine *base, uint32_t qp)
{
	struct cpu_engine *engine = cpu_engine(base);
	bool failed;

	pthread_mutex_lock(&engine->lock);
	failed = engine->qps[qp].failed;
	pthread_mutex_unlock(&engine->lock);
	return failed;
}

static bool cpu_recover(struct engine *base, uint32_t qp)
{
	struct cpu_engine *engine = cpu_engine(base);

	pthread_mutex_lock(&engine->lock);
	engine->qps[qp].failed = false;
	pthread_mutex_unlock(&engine->lock);
	return true;
}

static void cpu_close(struct engine *base)
{
	struct cpu_engine *engine = cpu_engine(base);

	pthread_mutex_lock(&engine->lock);
	engine->closing = true;
	pthread_cond_broadcast(&engine->work);
	pthread_mutex_unlock(&engine->lock);
	for (uint32_t i = 0; i < engine->config.qps; i++) {
		pthread_join(engine->qps[i].thread, NULL);
		free(engine->qps[i].queue);
	}
	free(engine->qps);
	free(engine->done);
	free(engine);
}

static const struct engine_ops cpu_ops = {
	.close = cpu_close,
	.post = cpu_post,
	.poll = cpu_poll,
	.failed = cpu_failed,
	.recover = cpu_recover,
};

struct engine *engine_open_cpu(const struct engine_config *config)
{
	struct cpu_engine *engine = xcalloc(1, sizeof(*engine));
	struct sigaction action = { .sa_handler = on_bus_error, .sa_flags = SA_NODEFER };

	engine->base.ops = &cpu_ops;
	engine->config = *config;
	engine->qps = xcalloc(config->qps, sizeof(*engine->qps));
	engine->done_size = config->qps * (config->depth + 1) + 1;
	engine->done = xcalloc(engine->done_size, sizeof(*engine->done));
	pthread_mutex_init(&engine->lock, NULL);
	pthread_cond_init(&engine->work, NULL);
	pthread_cond_init(&engine->completed, NULL);
	sigaction(SIGBUS, &action, NULL);
	for (uint32_t i = 0; i < config->qps; i++) {
		struct cpu_qp *qp = &engine->qps[i];

		qp->engine = engine;
		qp->queue = xcalloc(config->depth + 1, sizeof(*qp->queue));
		if (pthread_create(&qp->thread, NULL, worker, qp))
			die("cannot start a thread");
	}
	return &engine->base;
}
