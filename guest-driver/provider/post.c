// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * ibv_post_send() and ibv_post_recv(). Requests are written to the ring, then
 * the producer index to the doorbell record. Sends also ring the doorbell.
 */

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "provider.h"

/* Copies the data into the request. Returns 0 or an errno. */
static int fill_inline(struct refault_sq_wqe *wqe, const struct ibv_send_wr *wr)
{
	int err = wqe_add_inline(wqe, NULL, 0);
	int i;

	for (i = 0; !err && i < wr->num_sge; i++)
		err = wqe_add_inline(wqe,
				     (void *)(uintptr_t)wr->sg_list[i].addr,
				     wr->sg_list[i].length);
	return err;
}

static void fill_rdma(struct refault_sq_wqe *wqe, const struct ibv_send_wr *wr)
{
	wqe_set_remote(wqe, wr->wr.rdma.remote_addr, wr->wr.rdma.rkey);
}

static void fill_atomic(struct refault_sq_wqe *wqe, const struct ibv_send_wr *wr)
{
	wqe_set_remote(wqe, wr->wr.atomic.remote_addr, wr->wr.atomic.rkey);
	wqe->compare_add = htole64(wr->wr.atomic.compare_add);
	wqe->swap = htole64(wr->wr.atomic.swap);
}

/*
 * Fills in the opcode and operands for a connected queue pair. FLUSH is missing
 * because ibv_send_wr has no fields for its length and type; it is posted with
 * ibv_wr_flush(). Returns 0 or an errno.
 */
static int fill_connected(struct refault_sq_wqe *wqe,
			  const struct ibv_send_wr *wr)
{
	switch (wr->opcode) {
	case IBV_WR_SEND:
		wqe->opcode = REFAULT_OP_SEND;
		return 0;
	case IBV_WR_SEND_WITH_IMM:
		wqe->opcode = REFAULT_OP_SEND_IMM;
		wqe_set_imm(wqe, wr->imm_data);
		return 0;
	case IBV_WR_RDMA_WRITE:
		wqe->opcode = REFAULT_OP_RDMA_WRITE;
		fill_rdma(wqe, wr);
		return 0;
	case IBV_WR_RDMA_WRITE_WITH_IMM:
		wqe->opcode = REFAULT_OP_RDMA_WRITE_IMM;
		fill_rdma(wqe, wr);
		wqe_set_imm(wqe, wr->imm_data);
		return 0;
	case IBV_WR_RDMA_READ:
		wqe->opcode = REFAULT_OP_RDMA_READ;
		fill_rdma(wqe, wr);
		return 0;
	case IBV_WR_ATOMIC_CMP_AND_SWP:
		wqe->opcode = REFAULT_OP_COMPARE_SWAP;
		fill_atomic(wqe, wr);
		return 0;
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		wqe->opcode = REFAULT_OP_FETCH_ADD;
		fill_atomic(wqe, wr);
		return 0;
	case IBV_WR_ATOMIC_WRITE:
		wqe->opcode = REFAULT_OP_ATOMIC_WRITE;
		fill_rdma(wqe, wr);
		return 0;
	default:
		return EOPNOTSUPP;
	}
}

/* The same for a datagram queue pair. */
static int fill_datagram(struct refault_sq_wqe *wqe,
			 const struct ibv_send_wr *wr)
{
	if (wr->opcode != IBV_WR_SEND && wr->opcode != IBV_WR_SEND_WITH_IMM)
		return EOPNOTSUPP;
	if (!wr->wr.ud.ah)
		return EINVAL;
	wqe_set_ud(wqe, to_ah(wr->wr.ud.ah), wr->wr.ud.remote_qpn,
		   wr->wr.ud.remote_qkey);
	return fill_connected(wqe, wr);
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
	err = qp->vqp.qp.qp_type == IBV_QPT_UD ? fill_datagram(wqe, wr) :
						 fill_connected(wqe, wr);
	if (err)
		return err;
	if (wr->send_flags & IBV_SEND_INLINE) {
		err = fill_inline(wqe, wr);
		if (err)
			return err;
	} else {
		wqe_set_sges(wqe->sge, wr->sg_list, wr->num_sge);
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
	if (qp->sq.head != before)
		ring_send(qp);
	pthread_spin_unlock(&qp->sq.lock);
	return err;
}

/* Returns 0 or an errno. */
static int post_one_recv(struct refault_qp *qp, const struct ibv_recv_wr *wr)
{
	struct refault_rq_wqe *wqe = queue_slot(&qp->rq, sizeof(*wqe));
	int err;

	if (queue_is_full(&qp->rq))
		return ENOMEM;
	err = wqe_fill_recv(wqe, wr);
	if (!err)
		qp->rq.head++;
	return err;
}

/*
 * Whether the NIC, maybe because of the peer, has taken the queue pair to the
 * error state. The NIC writes this and then reads the producer index: with the
 * fence, either it sees what was just published, or we see this.
 */
static bool nic_flushes(struct refault_qp *qp)
{
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit((_Atomic __le32 *)&qp->record->in_error,
				    memory_order_relaxed) != 0;
}

int refault_post_recv(struct ibv_qp *ibqp, struct ibv_recv_wr *wr,
		      struct ibv_recv_wr **bad_wr)
{
	struct refault_qp *qp = to_qp(ibqp);
	int err = 0;

	pthread_spin_lock(&qp->rq.lock);
	/* A queue pair with an SRQ has no receive queue of its own. */
	if (ibqp->state == IBV_QPS_RESET || ibqp->srq)
		err = EINVAL;
	while (!err && wr) {
		err = post_one_recv(qp, wr);
		if (!err)
			wr = wr->next;
	}
	if (err)
		*bad_wr = wr;
	publish_producer(&qp->record->rq_producer, qp->rq.head);
	/* Receives need a doorbell only to be flushed in the error state. */
	if (ibqp->state == IBV_QPS_ERR || atomic_load(&qp->failed) ||
	    nic_flushes(qp))
		ring_doorbell(to_context(ibqp->context), REFAULT_DOORBELL_SQ,
			      ibqp->qp_num, 0);
	pthread_spin_unlock(&qp->rq.lock);
	return err;
}
