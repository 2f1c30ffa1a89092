// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * RDMA WRITEs through libibverbs: a protection domain, one on-demand memory region over the whole address space,
 * and pairs of RC queue pairs connected to each other on the same port. No page is pinned: the file's mapping is
 * named by its plain address. Nothing in it is particular to one device, but for an optional access flag that says
 * how the region is to be translated; others ignore it.
 */
#include "demo_verbs.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "refault_abi.h"

#define BUSY_POLLS 64	/* empty looks at the queue before it is armed and slept on */

struct verbs_engine {
	struct engine base;
	struct verbs_port port;
	uint32_t qps;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_qp **senders, **receivers;
	struct ibv_mr *source_mr, *target_mr;	/* the same one if implicit */
};

static struct verbs_engine *verbs_engine(struct engine *engine)
{
	return (struct verbs_engine *)engine;
}

static bool verbs_post(struct engine *base, const struct write_request *request)
{
	struct verbs_engine *engine = verbs_engine(base);
	struct ibv_sge sge = {
		.addr = (uintptr_t)request->source,
		.length = request->length,
		.lkey = engine->source_mr->lkey,
	};
	struct ibv_send_wr wr = {
		.wr_id = request->tag,
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_RDMA_WRITE,
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = { .remote_addr = (uintptr_t)request->target, .rkey = engine->target_mr->rkey },
	}, *bad;

	return ibv_post_send(engine->senders[request->qp], &wr, &bad) == 0;
}

static uint32_t take(struct verbs_engine *engine, struct write_result *results, uint32_t max)
{
	struct ibv_wc wc[32];
	int count = ibv_poll_cq(engine->cq, max < 32 ? (int)max : 32, wc);

	if (count < 0)
		die("ibv_poll_cq failed");
	for (int i = 0; i < count; i++)
		results[i] = (struct write_result){
			.tag = wc[i].wr_id,
			.status = wc[i].status,
			.vendor = wc[i].vendor_err,
		};
	return (uint32_t)count;
}

/* Sleeps until the completion queue's event or `wait_ms`; the queue must be armed. */
static void wait_event(struct verbs_engine *engine, unsigned int wait_ms)
{
	struct pollfd fd = { .fd = engine->channel->fd, .events = POLLIN };
	struct ibv_cq *cq;
	void *context;

	if (poll(&fd, 1, (int)wait_ms) > 0 && ibv_get_cq_event(engine->channel, &cq, &context) == 0)
		ibv_ack_cq_events(cq, 1);
}

static uint32_t verbs_poll(struct engine *base, struct write_result *results, uint32_t max,
			   unsigned int wait_ms)
{
	struct verbs_engine *engine = verbs_engine(base);
	uint32_t count = 0;

	for (int i = 0; i < BUSY_POLLS && !count; i++)
		count = take(engine, results, max);
	if (count || !wait_ms)
		return count;
	if (ibv_req_notify_cq(engine->cq, 0))
		die("ibv_req_notify_cq failed");
	/* What came between the last look and the arming raises no event. */
	count = take(engine, results, max);
	if (count)
		return count;
	wait_event(engine, wait_ms);
	return take(engine, results, max);
}

static bool verbs_failed(struct engine *base, uint32_t qp)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;

	if (ibv_query_qp(verbs_engine(base)->senders[qp], &attr, IBV_QP_STATE, &init))
		die("ibv_query_qp failed");
	return attr.qp_state == IBV_QPS_ERR;
}

/*
 * Both ends start anew. A responder that refused an access may itself be in the error state (IBA 9.9.3), and
 * the pair's packet numbers must agree.
 */
static bool verbs_recover(struct engine *base, uint32_t qp)
{
	struct verbs_engine *engine = verbs_engine(base);

	return verbs_reset_qp(engine->senders[qp]) && verbs_reset_qp(engine->receivers[qp]) &&
	       verbs_connect_qp(&engine->port, engine->receivers[qp], engine->senders[qp]->qp_num) &&
	       verbs_connect_qp(&engine->port, engine->senders[qp], engine->receivers[qp]->qp_num);
}

static void verbs_close(struct engine *base)
{
	struct verbs_engine *engine = verbs_engine(base);
	bool ok = true;

	for (uint32_t i = 0; i < engine->qps; i++)
		ok &= !ibv_destroy_qp(engine->senders[i]) && !ibv_destroy_qp(engine->receivers[i]);
	ok &= !ibv_destroy_cq(engine->cq) && !ibv_destroy_comp_channel(engine->channel);
	if (engine->target_mr != engine->source_mr)
		ok &= !ibv_dereg_mr(engine->target_mr);
	ok &= !ibv_dereg_mr(engine->source_mr);
	if (!ok)
		die("destroying the verbs objects failed: %s", strerror(errno));
	verbs_close_port(&engine->port);
	free(engine->senders);
	free(engine->receivers);
	free(engine);
}

static const struct engine_ops verbs_ops = {
	.close = verbs_close,
	.post = verbs_post,
	.poll = verbs_poll,
	.failed = verbs_failed,
	.recover = verbs_recover,
};

static struct ibv_mr *on_demand_mr(struct verbs_engine *engine, const struct engine_config *config,
				   void *start, size_t length)
{
	unsigned int how = config->translation == TRANSLATE_ODP ? REFAULT_UVERBS_ACCESS_ODP :
								  REFAULT_UVERBS_ACCESS_PASID;
	struct ibv_mr *mr = ibv_reg_mr(engine->port.pd, start, length, IBV_ACCESS_LOCAL_WRITE |
				       IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_ON_DEMAND | how);

	if (!mr)
		die("on-demand ibv_reg_mr(%p, %#zx): %s", start, length, strerror(errno));
	return mr;
}

static void register_memory(struct verbs_engine *engine, const struct engine_config *config)
{
	if (!config->explicit_mr) {
		engine->source_mr = engine->target_mr = on_demand_mr(engine, config, NULL, SIZE_MAX);
		return;
	}
	engine->source_mr = on_demand_mr(engine, config, config->source, config->source_bytes);
	engine->target_mr = on_demand_mr(engine, config, config->target, config->target_bytes);
}

struct engine *engine_open_verbs(const struct engine_config *config)
{
	struct verbs_engine *engine = xcalloc(1, sizeof(*engine));
	struct verbs_port *port = &engine->port;

	engine->base.ops = &verbs_ops;
	engine->qps = config->qps;
	verbs_open_port(port, config->device);
	register_memory(engine, config);
	engine->channel = ibv_create_comp_channel(port->context);
	if (!engine->channel)
		die("ibv_create_comp_channel: %s", strerror(errno));
	engine->cq = ibv_create_cq(port->context, (int)(2 * config->qps * config->depth), NULL,
				   engine->channel, 0);
	if (!engine->cq)
		die("ibv_create_cq: %s", strerror(errno));
	engine->senders = xcalloc(config->qps, sizeof(struct ibv_qp *));
	engine->receivers = xcalloc(config->qps, sizeof(struct ibv_qp *));
	for (uint32_t i = 0; i < config->qps; i++) {
		engine->senders[i] = verbs_create_qp(port, engine->cq, config->depth);
		engine->receivers[i] = verbs_create_qp(port, engine->cq, config->depth);
		if (!verbs_recover(&engine->base, i))
			die("connecting queue pair %u: %s", i, strerror(errno));
	}
	return &engine->base;
}
