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

#include "refault_abi.h"

#define BATCH	32

struct verbs_engine {
	struct engine base;
	struct verbs_port port, peer;	/* of the target and, over a wire, of the source */
	const struct verbs_port *writer;	/* one of these */
	struct pairs pairs;
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
	.failed = verbs_failed,
	.recover = verbs_recover,
};

static void register_memory(struct verbs_engine *engine, const struct engine_config *config)
{
	const struct verbs_port *port = &engine->port, *writer = engine->writer;
	unsigned int access = config->translation == TRANSLATE_ODP ? REFAULT_UVERBS_ACCESS_ODP :
								     REFAULT_UVERBS_ACCESS_PASID;

	if (!config->explicit_mr) {
		engine->target_mr = verbs_on_demand_mr(port, NULL, SIZE_MAX, access);
		engine->source_mr = writer == port ? engine->target_mr :
						     verbs_on_demand_mr(writer, NULL, SIZE_MAX, access);
		return;
	}
	engine->source_mr = verbs_on_demand_mr(writer, config->source, config->source_bytes, access);
	engine->target_mr = verbs_on_demand_mr(port, config->target, config->target_bytes, access);
}

struct engine *engine_open_verbs(const struct engine_config *config)
{
	struct verbs_engine *engine = xcalloc(1, sizeof(*engine));

	engine->base.ops = &verbs_ops;
	verbs_open_port(&engine->port, config->device);
	engine->writer = &engine->port;
	if (config->peer) {
		verbs_open_port(&engine->peer, config->peer);
		engine->writer = &engine->peer;
	}
	register_memory(engine, config);
	pairs_open(&engine->pairs, engine->writer, &engine->port, config->qps, config->depth);
	return &engine->base;
}

const char *write_status_name(uint32_t status)
{
	return ibv_wc_status_str((enum ibv_wc_status)status);
}
