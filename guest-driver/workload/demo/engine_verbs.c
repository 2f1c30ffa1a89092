// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * RDMA WRITEs through libibverbs: one on-demand memory region over the whole address space, and pairs of RC queue
 * pairs. No page is pinned: the file's mapping is named by its plain address. All of this works on any device; the one
 * access flag of our own says how the NIC translates the region, and other devices ignore it.
 */
#include "common/pairs.h"
#include "engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rdma/ib_user_verbs.h>

#include "refault_abi.h"

#define BATCH	32

struct verbs_engine {
	struct engine base;
	struct verbs_port port, peer;	/* of the target and, over a wire, of the source */
	const struct verbs_port *writer;	/* one of these */
	struct pairs pairs;
	struct ibv_mr *source_mr, *target_mr;	/* the same one if implicit */
	uint8_t placement;			/* IBV_FLUSH_*; 0 without a wire */
};

static struct verbs_engine *verbs_engine(struct engine *engine)
{
	return (struct verbs_engine *)engine;
}

/*
 * A FLUSH is executed behind the WRITE, and completes when that is where it is to be. Of a WRITE that fails there are
 * two completions with its tag.
 */
static bool post_flushed(struct verbs_engine *engine, const struct write_request *request)
{
	struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(engine->pairs.senders[request->qp]);
	uintptr_t target = (uintptr_t)request->target;
	uint32_t rkey = engine->target_mr->rkey;

	ibv_wr_start(qp);
	qp->wr_id = request->tag;
	qp->wr_flags = request->flush ? 0 : IBV_SEND_SIGNALED;
	ibv_wr_rdma_write(qp, rkey, target);
	ibv_wr_set_sge(qp, engine->source_mr->lkey, (uintptr_t)request->source, request->length);
	if (request->flush) {
		qp->wr_flags = IBV_SEND_SIGNALED;
		ibv_wr_flush(qp, rkey, target, request->length, engine->placement, IBV_FLUSH_RANGE);
	}
	return ibv_wr_complete(qp) == 0;
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

	if (engine->writer->send_ops)
		return post_flushed(engine, request);
	return ibv_post_send(engine->pairs.senders[request->qp], &wr, &bad) == 0;
}

static uint32_t verbs_poll(struct engine *base, struct write_result *results, uint32_t max,
			   unsigned int wait_ms)
{
	struct ibv_wc wc[BATCH];
	uint32_t count = pairs_poll(&verbs_engine(base)->pairs, wc, max < BATCH ? max : BATCH, wait_ms);

	for (uint32_t i = 0; i < count; i++)
		results[i] = (struct write_result){
			.tag = wc[i].wr_id,
			.status = wc[i].status,
			.vendor = wc[i].vendor_err,
		};
	return count;
}

static const char *verbs_durability(struct engine *base)
{
	switch (verbs_engine(base)->placement) {
	case 0:
		return NULL;
	case IBV_FLUSH_PERSISTENT:
		return "durable";
	default:
		return "visible";
	}
}

static bool verbs_failed(struct engine *base, uint32_t qp)
{
	return pairs_failed(&verbs_engine(base)->pairs, qp);
}

static bool verbs_recover(struct engine *base, uint32_t qp)
{
	return pairs_recover(&verbs_engine(base)->pairs, qp);
}

static void verbs_close(struct engine *base)
{
	struct verbs_engine *engine = verbs_engine(base);
	bool ok = true;

	pairs_close(&engine->pairs);
	if (engine->target_mr != engine->source_mr)
		ok &= !ibv_dereg_mr(engine->target_mr);
	ok &= !ibv_dereg_mr(engine->source_mr);
	if (!ok)
		die("deregistering memory failed: %s", strerror(errno));
	if (engine->writer == &engine->peer)
		verbs_close_port(&engine->peer);
	verbs_close_port(&engine->port);
	free(engine);
}

static const struct engine_ops verbs_ops = {
	.close = verbs_close,
	.post = verbs_post,
	.poll = verbs_poll,
	.durability = verbs_durability,
	.failed = verbs_failed,
	.recover = verbs_recover,
};

static void register_memory(struct verbs_engine *engine, const struct engine_config *config)
{
	const struct verbs_port *port = &engine->port, *writer = engine->writer;
	unsigned int access = config->translation == TRANSLATE_ODP ? REFAULT_UVERBS_ACCESS_ODP :
								     REFAULT_UVERBS_ACCESS_PASID;
	unsigned int target_access = access | port->peer_access;

	if (!config->explicit_mr) {
		engine->target_mr = verbs_on_demand_mr(port, NULL, SIZE_MAX, target_access);
		engine->source_mr = writer == port ? engine->target_mr :
						     verbs_on_demand_mr(writer, NULL, SIZE_MAX, access);
		return;
	}
	engine->source_mr = verbs_on_demand_mr(writer, config->source, config->source_bytes, access);
	engine->target_mr = verbs_on_demand_mr(port, config->target, config->target_bytes,
					       target_access);
}

/* Rights for all flushes that the device has; persist_or_not() sees whether the target's memory survives. */
static void prepare_flushes(struct verbs_engine *engine)
{
	struct ibv_device_attr_ex attr;

	if (ibv_query_device_ex(engine->port.context, NULL, &attr))
		die("ibv_query_device_ex: %s", strerror(errno));
	if (attr.device_cap_flags_ex & IB_UVERBS_DEVICE_FLUSH_PERSISTENT) {
		engine->placement = IBV_FLUSH_PERSISTENT;
		engine->port.peer_access = IBV_ACCESS_FLUSH_PERSISTENT | IBV_ACCESS_FLUSH_GLOBAL;
	} else if (attr.device_cap_flags_ex & IB_UVERBS_DEVICE_FLUSH_GLOBAL) {
		engine->placement = IBV_FLUSH_GLOBAL;
		engine->port.peer_access = IBV_ACCESS_FLUSH_GLOBAL;
	} else {
		return;
	}
	engine->peer.send_ops = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_FLUSH;
}

/* The writer on another device, over a wire. */
static void open_peer(struct verbs_engine *engine, const struct engine_config *config)
{
	verbs_open_port(&engine->peer, config->peer);
	engine->writer = &engine->peer;
	if (config->ack_timeout)
		engine->peer.ack_timeout = config->ack_timeout;
	prepare_flushes(engine);
}

/*
 * A device that can make some memory of the machine durable refuses that for memory that no file backs. The first flush
 * shows it, on a queue pair that is not in use yet.
 */
static void persist_or_not(struct verbs_engine *engine, const struct engine_config *config)
{
	struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(engine->pairs.senders[0]);
	uint64_t start = now_ns();
	struct ibv_wc wc;

	ibv_wr_start(qp);
	qp->wr_flags = IBV_SEND_SIGNALED;
	ibv_wr_flush(qp, engine->target_mr->rkey, (uintptr_t)config->target, 1, IBV_FLUSH_PERSISTENT, IBV_FLUSH_RANGE);
	if (ibv_wr_complete(qp))
		die("a FLUSH cannot be posted");
	while (!pairs_poll(&engine->pairs, &wc, 1, 100))
		if (now_ns() - start > HANG_NS)
			die("a FLUSH does not complete");
	if (wc.status == IBV_WC_SUCCESS)
		return;
	engine->placement = IBV_FLUSH_GLOBAL;
	if (!pairs_recover(&engine->pairs, 0))
		die("connecting a queue pair again: %s", strerror(errno));
}

struct engine *engine_open_verbs(const struct engine_config *config)
{
	struct verbs_engine *engine = xcalloc(1, sizeof(*engine));

	engine->base.ops = &verbs_ops;
	verbs_open_port(&engine->port, config->device);
	engine->writer = &engine->port;
	if (config->peer)
		open_peer(engine, config);
	register_memory(engine, config);
	/* A record may need a WRITE and a FLUSH. */
	pairs_open(&engine->pairs, engine->writer, &engine->port, config->qps,
		   engine->placement ? 2 * config->depth : config->depth);
	if (engine->placement == IBV_FLUSH_PERSISTENT)
		persist_or_not(engine, config);
	return &engine->base;
}

const char *write_status_name(uint32_t status)
{
	return ibv_wc_status_str((enum ibv_wc_status)status);
}
