// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Posting work. Requests are written into the ring, then the producer index
 * into the doorbell record; send work also rings the doorbell.
 */

#include <endian.h>
#include <errno.h>
#include <string.h>

#include <util/udma_barrier.h>

#include "provider.h"

static bool queue_is_full(struct refault_queue *queue)
{
	uint32_t tail = atomic_load_explicit(&queue->tail,
					     memory_order_acquire);

	return queue->head - tail >= queue->size;
}

static void *queue_slot(struct refault_queue *queue, size_t entry_size)
{
	return (char *)queue->ring +
	       (queue->head & (queue->size - 1)) * entry_size;
}

/* The NIC sees the entries before it sees the index. */
static void publish_producer(__le32 *index, uint32_t value)
{
	udma_ordering_write_barrier();
	atomic_store_explicit((_Atomic __le32 *)index, htole32(value),
			      memory_order_release);
}

static void fill_sges(struct refault_sge *to, const struct ibv_sge *from,
		      int count)
{
	int i;

	for (i = 0; i < count; i++) {
		to[i].addr = htole64(from[i].addr);
		to[i].length = htole32(from[i].length);
		to[i].lkey = htole32(from[i].lkey);
	}
}

/* Copies the data itself into the request. */
static int fill_inline(struct refault_sq_wqe *wqe, const struct ibv_send_wr *wr)
{
	char *to = (char *)wqe->sge;
	uint32_t length = 0;
	int i;

	for (i = 0; i < wr->num_sge; i++) {
		if (wr->sg_list[i].length > REFAULT_MAX_INLINE - length)
			return EINVAL;
		memcpy(to + length, (void *)(uintptr_t)wr->sg_list[i].addr,
		       wr->sg_list[i].length);
		length += wr->sg_list[i].length;
	}
	wqe->flags |= REFAULT_WQE_INLINE;
	wqe->num_sge = 0;
	wqe->inline_length = htole32(length);
	return 0;
}

static void fill_remote(struct refault_sq_wqe *wqe, uint64_t addr,
			uint32_t rkey)
{
	wqe->remote_addr = htole64(addr);
	wqe->rkey = htole32(rkey);
}

static void fill_imm(struct refault_sq_wqe *wqe, const struct ibv_send_wr *wr)
{
	memcpy(&wqe->imm, &wr->imm_data, sizeof(wqe->imm));
}

static void fill_atomic(struct refault_sq_wqe *wqe, const struct ibv_send_wr *wr)
{
	fill_remote(wqe, wr->wr.atomic.remote_addr, wr->wr.atomic.rkey);
	wqe->compare_add = htole64(wr->wr.atomic.compare_add);
	wqe->swap = htole64(wr->wr.atomic.swap);
}

/* The operation and what belongs to it. Returns 0 or an errno. */
static int fill_operation(struct refault_sq_wqe *wqe,
			  const struct ibv_send_wr *wr)
{
	switch (wr->opcode) {
	case IBV_WR_SEND:
		wqe->opcode = REFAULT_OP_SEND;
		return 0;
	case IBV_WR_SEND_WITH_IMM:
		wqe->opcode = REFAULT_OP_SEND_IMM;
		fill_imm(wqe, wr);
		return 0;
	case IBV_WR_RDMA_WRITE:
		wqe->opcode = REFAULT_OP_RDMA_WRITE;
		fill_remote(wqe, wr->wr.rdma.remote_addr, wr->wr.rdma.rkey);
		return 0;
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		wqe->opcode = REFAULT_OP_RDMA_WRITE_IMM;
		fill_remote(wqe, wr->wr.rdma.remote_addr, wr->wr.rdma.rkey);
		fill_imm(wqe, wr);
		return 0;
	case IBV_WR_RDMA_READ:
		wqe->opcode = REFAULT_OP_RDMA_READ;
		fill_remote(wqe, wr->wr.rdma.remote_addr, wr->wr.rdma.rkey);
		return 0;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
		wqe->opcode = REFAULT_OP_COMPARE_SWAP;
		fill_atomic(wqe, wr);
		return 0;
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		wqe->opcode = REFAULT_OP_FETCH_ADD;
		fill_atomic(wqe, wr);
		return 0;
	default:
		return EOPNOTSUPP;
	}
}

static uint8_t wqe_flags(unsigned int send_flags)
{
	return (send_flags & IBV_SEND_SIGNALED ? REFAULT_WQE_SIGNALED : 0) |
	       (send_flags & IBV_SEND_SOLICITED ? REFAULT_WQE_SOLICITED : 0) |
	       (send_flags & IBV_SEND_FENCE ? REFAULT_WQE_FENCE : 0);
}

/* Returns 0 or an errno. */
static int post_one_send(struct refault_qp *qp, const struct ibv_send_wr *wr)
{
	struct refault_sq_wqe *wqe = queue_slot(&qp->sq, sizeof(*wqe));
	int err;

	if (queue_is_full(&qp->sq))
		return ENOMEM;
	if (wr->num_sge < 0 || wr->num_sge > (int)REFAULT_MAX_SGE)
		return EINVAL;

	memset(wqe, 0, offsetof(struct refault_sq_wqe, sge));
	wqe->wr_id = htole64(wr->wr_id);
	wqe->flags = wqe_flags(wr->send_flags);
	wqe->num_sge = wr->num_sge;
	err = fill_operation(wqe, wr);
	if (err)
		return err;
	if (wr->send_flags & IBV_SEND_INLINE) {
		err = fill_inline(wqe, wr);
		if (err)
			return err;
	} else {
		fill_sges(wqe->sge, wr->sg_list, wr->num_sge);
	}
	qp->sq.head++;
	return 0;
}

int refault_post_send(struct ibv_qp *ibqp, struct ibv_send_wr *wr,
		      struct ibv_send_wr **bad_wr)
{
	struct refault_qp *qp = to_qp(ibqp);
	uint32_t before;
	int err = 0;

	pthread_spin_lock(&qp->sq.lock);
	before = qp->sq.head;
	if (ibqp->state < IBV_QPS_RTS)
		err = EINVAL;
	while (!err && wr) {
		err = post_one_send(qp, wr);
		if (!err)
			wr = wr->next;
	}
	if (err)
		*bad_wr = wr;
	if (qp->sq.head != before) {
		publish_producer(&qp->record->sq_producer, qp->sq.head);
		ring_doorbell(to_context(ibqp->context), REFAULT_DOORBELL_SQ,
			      ibqp->qp_num, 0);
	}
	pthread_spin_unlock(&qp->sq.lock);
	return err;
}

/* Returns 0 or an errno. */
static int post_one_recv(struct refault_qp *qp, const struct ibv_recv_wr *wr)
{
	struct refault_rq_wqe *wqe = queue_slot(&qp->rq, sizeof(*wqe));

	if (queue_is_full(&qp->rq))
		return ENOMEM;
	if (wr->num_sge < 0 || wr->num_sge > (int)REFAULT_MAX_SGE)
		return EINVAL;

	wqe->wr_id = htole64(wr->wr_id);
	wqe->num_sge = htole32(wr->num_sge);
	fill_sges(wqe->sge, wr->sg_list, wr->num_sge);
	qp->rq.head++;
	return 0;
}

int refault_post_recv(struct ibv_qp *ibqp, struct ibv_recv_wr *wr,
		      struct ibv_recv_wr **bad_wr)
{
	struct refault_qp *qp = to_qp(ibqp);
	int err = 0;

	pthread_spin_lock(&qp->rq.lock);
	if (ibqp->state == IBV_QPS_RESET)
		err = EINVAL;
	while (!err && wr) {
		err = post_one_recv(qp, wr);
		if (!err)
			wr = wr->next;
	}
	if (err)
		*bad_wr = wr;
	publish_producer(&qp->record->rq_producer, qp->rq.head);
	/* Receives need no doorbell, but for being flushed. */
	if (ibqp->state == IBV_QPS_ERR || atomic_load(&qp->failed))
		ring_doorbell(to_context(ibqp->context), REFAULT_DOORBELL_SQ,
			      ibqp->qp_num, 0);
	pthread_spin_unlock(&qp->rq.lock);
	return err;
}
