// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Nothing in here is particular to one device, but for the vendor's word for a page that was refused. Local
 * buffers are named by the region over the whole address space, remote ones by it or by a region of their own.
 */
#include "demo_verbs.h"
#include "storm_engine.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_POLLS	64
#define CAUSE_PAGE_REFUSED 5	/* vendor error of the refault NIC */

struct verbs_engine {
	struct storm_engine base;
	struct verbs_port port;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_qp *senders[LANES], *receivers[LANES];
	struct ibv_mr *whole;
	uint32_t count;
	struct storm_range ranges[MAX_RANGES];
	struct ibv_mr *regions[MAX_RANGES];
};

static struct verbs_engine *verbs_engine(struct storm_engine *engine)
{
	return (struct verbs_engine *)engine;
}

static uint32_t remote_key(const struct verbs_engine *engine, const struct storm_request *request)
{
	for (uint32_t i = 0; i < engine->count && !request->whole; i++) {
		uint64_t offset = (uintptr_t)request->remote - (uintptr_t)engine->ranges[i].start;

		if (offset < engine->ranges[i].bytes)
			return engine->regions[i]->rkey;
	}
	return engine->whole->rkey;
}

static void verbs_post(struct storm_engine *base, const struct storm_request *request)
{
	static const enum ibv_wr_opcode opcodes[] = {
		[VERB_WRITE] = IBV_WR_RDMA_WRITE,
		[VERB_READ] = IBV_WR_RDMA_READ,
		[VERB_SWAP] = IBV_WR_ATOMIC_CMP_AND_SWP,
		[VERB_ADD] = IBV_WR_ATOMIC_FETCH_AND_ADD,
	};
	struct verbs_engine *engine = verbs_engine(base);
	struct ibv_sge sge = {
		.addr = (uintptr_t)request->local,
		.length = request->length,
		.lkey = engine->whole->lkey,
	};
	struct ibv_send_wr wr = {
		.wr_id = request->tag,
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = opcodes[request->verb],
		.send_flags = IBV_SEND_SIGNALED,
	}, *bad;

	if (request->verb == VERB_SWAP || request->verb == VERB_ADD) {
		wr.wr.atomic.remote_addr = (uintptr_t)request->remote;
		wr.wr.atomic.rkey = remote_key(engine, request);
		wr.wr.atomic.compare_add = request->verb == VERB_ADD ? request->swap : request->compare;
		wr.wr.atomic.swap = request->swap;
	} else {
		wr.wr.rdma.remote_addr = (uintptr_t)request->remote;
		wr.wr.rdma.rkey = remote_key(engine, request);
	}
	if (ibv_post_send(engine->senders[request->lane], &wr, &bad))
		die("ibv_post_send failed");
}

static enum storm_status status_of(const struct ibv_wc *wc)
{
	if (wc->status == IBV_WC_SUCCESS)
		return STATUS_DONE;
	if (wc->status == IBV_WC_WR_FLUSH_ERR)
		return STATUS_FLUSHED;
	if (wc->status == IBV_WC_REM_ACCESS_ERR && wc->vendor_err == CAUSE_PAGE_REFUSED)
		return STATUS_REFUSED;
	return STATUS_WRONG;
}

static uint32_t take(struct verbs_engine *engine, struct storm_result *results, uint32_t max)
{
	struct ibv_wc wc[16];
	int count = ibv_poll_cq(engine->cq, max < 16 ? (int)max : 16, wc);

	if (count < 0)
		die("ibv_poll_cq failed");
	for (int i = 0; i < count; i++)
		results[i] = (struct storm_result){
			.tag = wc[i].wr_id,
			.status = status_of(&wc[i]),
			.text = ibv_wc_status_str(wc[i].status),
			.vendor = wc[i].vendor_err,
		};
	return (uint32_t)count;
}

static void wait_event(struct verbs_engine *engine, unsigned int wait_ms)
{
	struct pollfd fd = { .fd = engine->channel->fd, .events = POLLIN };
	struct ibv_cq *cq;
	void *context;

	if (poll(&fd, 1, (int)wait_ms) > 0 && ibv_get_cq_event(engine->channel, &cq, &context) == 0)
		ibv_ack_cq_events(cq, 1);
}

static uint32_t verbs_poll(struct storm_engine *base, struct storm_result *results, uint32_t max,
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

static bool verbs_failed(struct storm_engine *base, uint32_t lane)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;

	if (ibv_query_qp(verbs_engine(base)->senders[lane], &attr, IBV_QP_STATE, &init))
		die("ibv_query_qp failed");
	return attr.qp_state == IBV_QPS_ERR;
}

/* Both ends: a responder that refused an access is itself in the error state. */
static bool verbs_recover(struct storm_engine *base, uint32_t lane)
{
	struct verbs_engine *engine = verbs_engine(base);
	struct ibv_qp *sender = engine->senders[lane], *receiver = engine->receivers[lane];

	return verbs_reset_qp(sender) && verbs_reset_qp(receiver) &&
	       verbs_connect_qp(&engine->port, receiver, sender->qp_num) &&
	       verbs_connect_qp(&engine->port, sender, receiver->qp_num);
}

static void verbs_close(struct storm_engine *base)
{
	struct verbs_engine *engine = verbs_engine(base);
	bool ok = true;

	for (uint32_t i = 0; i < LANES; i++)
		ok &= !ibv_destroy_qp(engine->senders[i]) && !ibv_destroy_qp(engine->receivers[i]);
	ok &= !ibv_destroy_cq(engine->cq) && !ibv_destroy_comp_channel(engine->channel);
	for (uint32_t i = 0; i < engine->count; i++)
		ok &= !ibv_dereg_mr(engine->regions[i]);
	ok &= !ibv_dereg_mr(engine->whole);
	if (!ok)
		die("destroying the verbs objects failed: %s", strerror(errno));
	verbs_close_port(&engine->port);
	free(engine);
}

static struct ibv_mr *on_demand_mr(struct ibv_pd *pd, void *start, size_t length)
{
	struct ibv_mr *mr = ibv_reg_mr(pd, start, length, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
				       IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |
				       IBV_ACCESS_ON_DEMAND);

	if (!mr)
		die("on-demand ibv_reg_mr(%p, %#zx): %s", start, length, strerror(errno));
	return mr;
}

struct storm_engine *storm_engine_verbs(const char *device, const struct storm_range *ranges, uint32_t count)
{
	struct verbs_engine *engine = xcalloc(1, sizeof(*engine));
	struct verbs_port *port = &engine->port;

	engine->base = (struct storm_engine){
		.close = verbs_close,
		.post = verbs_post,
		.poll = verbs_poll,
		.failed = verbs_failed,
		.recover = verbs_recover,
	};
	verbs_open_port(port, device);
	engine->whole = on_demand_mr(port->pd, NULL, SIZE_MAX);
	engine->count = count;
	for (uint32_t i = 0; i < count; i++) {
		engine->ranges[i] = ranges[i];
		engine->regions[i] = on_demand_mr(port->pd, ranges[i].start, ranges[i].bytes);
	}
	engine->channel = ibv_create_comp_channel(port->context);
	if (!engine->channel)
		die("ibv_create_comp_channel: %s", strerror(errno));
	engine->cq = ibv_create_cq(port->context, 2 * LANES * LANE_DEPTH, NULL, engine->channel, 0);
	if (!engine->cq)
		die("ibv_create_cq: %s", strerror(errno));
	for (uint32_t i = 0; i < LANES; i++) {
		engine->senders[i] = verbs_create_qp(port, engine->cq, LANE_DEPTH);
		engine->receivers[i] = verbs_create_qp(port, engine->cq, LANE_DEPTH);
		if (!verbs_recover(&engine->base, i))
			die("connecting queue pair %u: %s", i, strerror(errno));
	}
	return &engine->base;
}
