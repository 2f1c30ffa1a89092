// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Completion queues: creating, destroying, and asking to be notified.
 */

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include <infiniband/kern-abi.h>

#include "provider.h"

/* Our part follows verbs' own without a gap. */
struct create_cq_command {
	struct ibv_create_cq ibv;
	struct refault_uverbs_create_cq cq;
};

struct create_cq_response {
	struct ib_uverbs_create_cq_resp ibv;
	struct refault_uverbs_cq cq;
};

static_assert(sizeof(struct create_cq_command) ==
	      sizeof(struct ibv_create_cq) +
	      sizeof(struct refault_uverbs_create_cq), "create_cq_command");
static_assert(sizeof(struct create_cq_response) ==
	      sizeof(struct ib_uverbs_create_cq_resp) +
	      sizeof(struct refault_uverbs_cq), "create_cq_response");

/* The ring, then the doorbell record. */
static int cq_alloc_buffer(struct refault_cq *cq)
{
	size_t ring = (size_t)REFAULT_CQE_SIZE << cq->log_size;
	int err;

	err = buffer_alloc(&cq->buffer, ring + sizeof(*cq->record));
	if (err)
		return err;
	cq->ring = cq->buffer.base;
	cq->record = (void *)((char *)cq->buffer.base + ring);
	return 0;
}

static int cq_create_command(struct refault_cq *cq, struct ibv_context *context,
			     int cqe, struct ibv_comp_channel *channel,
			     int comp_vector)
{
	struct create_cq_command cmd = {
		.cq.buffer = htole64((uintptr_t)cq->buffer.base),
		.cq.length = htole64(cq->buffer.length),
		.cq.record_offset = htole32((char *)cq->record -
					    (char *)cq->buffer.base),
		.cq.log_size = htole32(cq->log_size),
	};
	struct create_cq_response resp = {};
	int err;

	err = ibv_cmd_create_cq(context, cqe, channel, comp_vector, &cq->vcq.cq,
				&cmd.ibv, sizeof(cmd), &resp.ibv, sizeof(resp));
	if (!err)
		cq->cqn = le32toh(resp.cq.cqn);
	return err;
}

struct ibv_cq *refault_create_cq(struct ibv_context *context, int cqe,
				 struct ibv_comp_channel *channel,
				 int comp_vector)
{
	struct refault_cq *cq;
	int err;

	if (cqe < 1 || cqe > 1 << REFAULT_MAX_LOG_CQES) {
		errno = EINVAL;
		return NULL;
	}
	cq = calloc(1, sizeof(*cq));
	if (!cq)
		return NULL;
	cq->log_size = log2_up(cqe);
	err = cq_alloc_buffer(cq);
	if (err)
		goto err_free;
	err = cq_create_command(cq, context, cqe, channel, comp_vector);
	if (err)
		goto err_buffer;
	pthread_spin_init(&cq->lock, PTHREAD_PROCESS_PRIVATE);
	return &cq->vcq.cq;

err_buffer:
	buffer_free(&cq->buffer);
err_free:
	free(cq);
	errno = err;
	return NULL;
}

int refault_destroy_cq(struct ibv_cq *ibcq)
{
	struct refault_cq *cq = to_cq(ibcq);
	int err;

	err = ibv_cmd_destroy_cq(ibcq);
	if (err)
		return err;
	pthread_spin_destroy(&cq->lock);
	buffer_free(&cq->buffer);
	free(cq);
	return 0;
}

/* The NIC compares our index: what we have not polled yet is told at once. */
int refault_req_notify_cq(struct ibv_cq *ibcq, int solicited_only)
{
	struct refault_cq *cq = to_cq(ibcq);
	uint32_t consumer;

	pthread_spin_lock(&cq->lock);
	consumer = cq->consumer;
	pthread_spin_unlock(&cq->lock);
	ring_doorbell(to_context(ibcq->context),
		      solicited_only ? REFAULT_DOORBELL_CQ_ARM_SOLICITED :
				       REFAULT_DOORBELL_CQ_ARM,
		      cq->cqn, consumer);
	return 0;
}
