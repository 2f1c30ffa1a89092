// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Shared receive queues. The NIC consumes entries in order, for any of the
 * queue pairs, and writes its consumer index to the doorbell record.
 */

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include <infiniband/kern-abi.h>

#include "provider.h"

/* The driver's part follows the one of uverbs without padding. */
struct create_srq_command {
	struct ibv_create_srq ibv;
	struct refault_uverbs_create_srq srq;
};

struct create_srq_response {
	struct ib_uverbs_create_srq_resp ibv;
	struct refault_uverbs_srq srq;
};

static_assert(sizeof(struct create_srq_command) ==
	      sizeof(struct ibv_create_srq) +
	      sizeof(struct refault_uverbs_create_srq), "create_srq_command");
static_assert(sizeof(struct create_srq_response) ==
	      sizeof(struct ib_uverbs_create_srq_resp) +
	      sizeof(struct refault_uverbs_srq), "create_srq_response");

static size_t srq_record_offset(const struct refault_srq *srq)
{
	return (size_t)srq->queue.size * REFAULT_RQ_WQE_SIZE;
}

/* The ring, then the doorbell record. */
static int srq_alloc_buffer(struct refault_srq *srq)
{
	int err = buffer_alloc(&srq->buffer, srq_record_offset(srq) +
					     sizeof(*srq->record));

	if (err)
		return err;
	srq->queue.ring = srq->buffer.base;
	srq->record = (void *)((char *)srq->buffer.base +
			       srq_record_offset(srq));
	return 0;
}

static int srq_create_command(struct refault_srq *srq, struct ibv_pd *pd,
			      struct ibv_srq_init_attr *attr)
{
	struct create_srq_command cmd = {
		.srq.buffer = htole64((uintptr_t)srq->buffer.base),
		.srq.length = htole64(srq->buffer.length),
		.srq.record_offset = htole32(srq_record_offset(srq)),
		.srq.log_size = htole32(log2_up(srq->queue.size)),
	};
	struct create_srq_response resp = {};
	int err;

	err = ibv_cmd_create_srq(pd, &srq->ibsrq, attr, &cmd.ibv, sizeof(cmd),
				 &resp.ibv, sizeof(resp));
	if (!err)
		srq->srqn = le32toh(resp.srq.srqn);
	return err;
}

struct ibv_srq *refault_create_srq(struct ibv_pd *pd,
				   struct ibv_srq_init_attr *attr)
{
	struct refault_srq *srq;
	int err;

	if (!attr->attr.max_wr || attr->attr.max_sge > REFAULT_MAX_SGE ||
	    attr->attr.max_wr > 1U << REFAULT_MAX_LOG_WQES) {
		errno = EINVAL;
		return NULL;
	}
	srq = calloc(1, sizeof(*srq));
	if (!srq)
		return NULL;
	srq->queue.size = 1U << log2_up(attr->attr.max_wr);
	err = srq_alloc_buffer(srq);
	if (err)
		goto err_free;
	err = srq_create_command(srq, pd, attr);
	if (err)
		goto err_buffer;
	pthread_spin_init(&srq->queue.lock, PTHREAD_PROCESS_PRIVATE);
	return &srq->ibsrq;

err_buffer:
	buffer_free(&srq->buffer);
err_free:
	free(srq);
	errno = err;
	return NULL;
}

int refault_modify_srq(struct ibv_srq *ibsrq, struct ibv_srq_attr *attr,
		       int mask)
{
	struct ibv_modify_srq cmd = {};

	return ibv_cmd_modify_srq(ibsrq, attr, mask, &cmd, sizeof(cmd));
}

int refault_query_srq(struct ibv_srq *ibsrq, struct ibv_srq_attr *attr)
{
	struct ibv_query_srq cmd = {};

	return ibv_cmd_query_srq(ibsrq, attr, &cmd, sizeof(cmd));
}

int refault_destroy_srq(struct ibv_srq *ibsrq)
{
	struct refault_srq *srq = to_srq(ibsrq);
	int err = ibv_cmd_destroy_srq(ibsrq);

	if (err)
		return err;
	pthread_spin_destroy(&srq->queue.lock);
	buffer_free(&srq->buffer);
	free(srq);
	return 0;
}

/*
 * Updates the tail from the NIC's consumer index. The acquire orders the NIC's
 * reads of these entries before the stores that reuse them.
 */
static void srq_take_tail(struct refault_srq *srq)
{
	__le32 consumer = atomic_load_explicit(
		(_Atomic __le32 *)&srq->record->consumer, memory_order_acquire);

	atomic_store_explicit(&srq->queue.tail, le32toh(consumer),
			      memory_order_relaxed);
}

/* Returns 0 or an errno. */
static int post_one(struct refault_srq *srq, const struct ibv_recv_wr *wr)
{
	struct refault_rq_wqe *wqe = queue_slot(&srq->queue, sizeof(*wqe));
	int err;

	if (queue_is_full(&srq->queue))
		srq_take_tail(srq);
	if (queue_is_full(&srq->queue))
		return ENOMEM;
	err = wqe_fill_recv(wqe, wr);
	if (!err)
		srq->queue.head++;
	return err;
}

int refault_post_srq_recv(struct ibv_srq *ibsrq, struct ibv_recv_wr *wr,
			  struct ibv_recv_wr **bad_wr)
{
	struct refault_srq *srq = to_srq(ibsrq);
	int err = 0;

	pthread_spin_lock(&srq->queue.lock);
	while (!err && wr) {
		err = post_one(srq, wr);
		if (!err)
			wr = wr->next;
	}
	if (err)
		*bad_wr = wr;
	publish_producer(&srq->record->producer, srq->queue.head);
	pthread_spin_unlock(&srq->queue.lock);
	return err;
}
