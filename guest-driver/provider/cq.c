// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Completion queues: creation, modification, destruction and arming.
 */

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include <infiniband/kern-abi.h>

#include "provider.h"

/* The driver's part follows the one of uverbs without padding. */
struct create_cq_command {
	struct ibv_create_cq_ex ibv;
	struct refault_uverbs_create_cq cq;
};

struct create_cq_response {
	struct ib_uverbs_ex_create_cq_resp ibv;
	struct refault_uverbs_cq cq;
};

static_assert(sizeof(struct create_cq_command) ==
	      sizeof(struct ibv_create_cq_ex) +
	      sizeof(struct refault_uverbs_create_cq), "create_cq_command");
static_assert(sizeof(struct create_cq_response) ==
	      sizeof(struct ib_uverbs_ex_create_cq_resp) +
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
			     const struct ibv_cq_init_attr_ex *attr)
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

	err = ibv_cmd_create_cq_ex(context, attr, &cq->vcq, &cmd.ibv,
				   sizeof(cmd), &resp.ibv, sizeof(resp), 0);
	if (!err)
		cq->cqn = le32toh(resp.cq.cqn);
	return err;
}

/* Returns 0 or an errno. */
static int cq_check_attr(const struct ibv_cq_init_attr_ex *attr)
{
	if (attr->comp_mask & ~IBV_CQ_INIT_ATTR_MASK_FLAGS)
		return EOPNOTSUPP;
	/* IGNORE_OVERRUN is not supported: the NIC never overwrites entries. */
	if (attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS &&
	    attr->flags & ~IBV_CREATE_CQ_ATTR_SINGLE_THREADED)
		return EOPNOTSUPP;
	if (attr->cqe < 1 || attr->cqe > 1U << REFAULT_MAX_LOG_CQES)
		return EINVAL;
	return 0;
}

static struct refault_cq *cq_create(struct ibv_context *context,
				    const struct ibv_cq_init_attr_ex *attr)
{
	struct refault_cq *cq;
	int err;

	err = cq_check_attr(attr);
	if (err) {
		errno = err;
		return NULL;
	}
	cq = calloc(1, sizeof(*cq));
	if (!cq)
		return NULL;
	cq->log_size = log2_up(attr->cqe);
	cq->single_threaded = attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS &&
			      attr->flags & IBV_CREATE_CQ_ATTR_SINGLE_THREADED;
	err = cq_ex_init(cq, attr->wc_flags);
	if (err)
		goto err_free;
	err = cq_alloc_buffer(cq);
	if (err)
		goto err_free;
	err = cq_create_command(cq, context, attr);
	if (err)
		goto err_buffer;
	pthread_spin_init(&cq->lock, PTHREAD_PROCESS_PRIVATE);
	return cq;

err_buffer:
	buffer_free(&cq->buffer);
err_free:
	free(cq);
	errno = err;
	return NULL;
}

struct ibv_cq *refault_create_cq(struct ibv_context *context, int cqe,
				 struct ibv_comp_channel *channel,
				 int comp_vector)
{
	struct ibv_cq_init_attr_ex attr = {
		.cqe = cqe,
		.channel = channel,
		.comp_vector = comp_vector,
	};
	struct refault_cq *cq = cq_create(context, &attr);

	return cq ? &cq->vcq.cq : NULL;
}

struct ibv_cq_ex *refault_create_cq_ex(struct ibv_context *context,
				       struct ibv_cq_init_attr_ex *attr)
{
	struct refault_cq *cq = cq_create(context, attr);

	return cq ? &cq->vcq.cq_ex : NULL;
}

int refault_modify_cq(struct ibv_cq *ibcq, struct ibv_modify_cq_attr *attr)
{
	struct ibv_modify_cq cmd = {};

	return ibv_cmd_modify_cq(ibcq, attr, &cmd, sizeof(cmd));
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

/*
 * The doorbell carries the consumer index, so that the NIC sends the event at
 * once if there are entries that were not polled yet.
 */
int refault_req_notify_cq(struct ibv_cq *ibcq, int solicited_only)
{
	struct refault_cq *cq = to_cq(ibcq);
	uint32_t consumer;

	cq_lock(cq);
	consumer = cq->consumer;
	cq_unlock(cq);
	ring_doorbell(to_context(ibcq->context),
		      solicited_only ? REFAULT_DOORBELL_CQ_ARM_SOLICITED :
				       REFAULT_DOORBELL_CQ_ARM,
		      cq->cqn, consumer);
	return 0;
}
