// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Requests through libibverbs. A local buffer is named by the region over the whole address space, a remote one by
 * that region or by a region of its own. All of this works on any device but for the vendor error of a refused page.
 */
#include "common/pairs.h"
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BATCH			16
#define CAUSE_PAGE_REFUSED	5	/* vendor error of the refault NIC */
#define EXTRA_ACCESS		(IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

struct verbs_engine {
	struct storm_engine base;
	struct verbs_port port;
	struct pairs pairs;
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
	if (ibv_post_send(engine->pairs.senders[request->lane], &wr, &bad))
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
	if (wc->status == IBV_WC_RETRY_EXC_ERR && verbs_link_loses())
		return STATUS_LOST;
	return STATUS_WRONG;
}

static uint32_t verbs_poll(struct storm_engine *base, struct storm_result *results, uint32_t max,
			   unsigned int wait_ms)
{
	struct ibv_wc wc[BATCH];
	uint32_t count = pairs_poll(&verbs_engine(base)->pairs, wc, max < BATCH ? max : BATCH, wait_ms);

	for (uint32_t i = 0; i < count; i++)
		results[i] = (struct storm_result){
			.tag = wc[i].wr_id,
			.status = status_of(&wc[i]),
			.text = ibv_wc_status_str(wc[i].status),
			.vendor = wc[i].vendor_err,
		};
	return count;
}

static bool verbs_failed(struct storm_engine *base, uint32_t lane)
{
	return pairs_failed(&verbs_engine(base)->pairs, lane);
}

static bool verbs_recover(struct storm_engine *base, uint32_t lane)
{
	return pairs_recover(&verbs_engine(base)->pairs, lane);
}

static void verbs_close(struct storm_engine *base)
{
	struct verbs_engine *engine = verbs_engine(base);
	bool ok = true;

	pairs_close(&engine->pairs);
	for (uint32_t i = 0; i < engine->count; i++)
		ok &= !ibv_dereg_mr(engine->regions[i]);
	ok &= !ibv_dereg_mr(engine->whole);
	if (!ok)
		die("deregistering memory failed: %s", strerror(errno));
	verbs_close_port(&engine->port);
	free(engine);
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
	engine->whole = verbs_on_demand_mr(port, NULL, SIZE_MAX, EXTRA_ACCESS);
	engine->count = count;
	for (uint32_t i = 0; i < count; i++) {
		engine->ranges[i] = ranges[i];
		engine->regions[i] = verbs_on_demand_mr(port, ranges[i].start, ranges[i].bytes, EXTRA_ACCESS);
	}
	pairs_open(&engine->pairs, port, port, LANES, LANE_DEPTH);
	return &engine->base;
}
