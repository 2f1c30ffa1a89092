// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Posting with ibv_wr_*(): one call starts a request, others set its operands.
 * The requests are built in the ring; ibv_wr_complete() posts all of them at
 * once, or none if one of them was in error.
 *
 * The lock of the send queue is held from ibv_wr_start() to ibv_wr_complete()
 * or ibv_wr_abort().
 */

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "provider.h"

#define DATAGRAM_OPS (IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM)
#define CONNECTED_OPS                                                     \
	(DATAGRAM_OPS | IBV_QP_EX_WITH_RDMA_WRITE |                       \
	 IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_RDMA_READ |  \
	 IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |                              \
	 IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | IBV_QP_EX_WITH_FLUSH |     \
	 IBV_QP_EX_WITH_ATOMIC_WRITE)

static struct refault_qp *from_ex(struct ibv_qp_ex *qp_ex)
{
	return container_of(qp_ex, struct refault_qp, vqp.qp_ex);
}

static void batch_fail(struct refault_batch *batch, int err)
{
	if (!batch->err)
		batch->err = err;
	batch->wqe = NULL;
}

static void wr_start(struct ibv_qp_ex *qp_ex)
{
	struct refault_qp *qp = from_ex(qp_ex);

	pthread_spin_lock(&qp->sq.lock);
	qp->batch = (struct refault_batch){ .start = qp->sq.head };
	if (qp->vqp.qp.state < IBV_QPS_RTS)
		batch_fail(&qp->batch, EINVAL);
}

static int wr_complete(struct ibv_qp_ex *qp_ex)
{
	struct refault_qp *qp = from_ex(qp_ex);
	int err = qp->batch.err;

	if (err)
		qp->sq.head = qp->batch.start;
	else if (qp->sq.head != qp->batch.start)
		ring_send(qp);
	pthread_spin_unlock(&qp->sq.lock);
	return err;
}

static void wr_abort(struct ibv_qp_ex *qp_ex)
{
	struct refault_qp *qp = from_ex(qp_ex);

	qp->sq.head = qp->batch.start;
	pthread_spin_unlock(&qp->sq.lock);
}

/* Starts a request. Returns NULL if the queue is full, or after an error. */
static struct refault_sq_wqe *wr_begin(struct ibv_qp_ex *qp_ex, uint8_t opcode)
{
	struct refault_qp *qp = from_ex(qp_ex);
	struct refault_sq_wqe *wqe;

	if (qp->batch.err)
		return NULL;
	if (queue_is_full(&qp->sq)) {
		batch_fail(&qp->batch, ENOMEM);
		return NULL;
	}
	wqe = queue_slot(&qp->sq, sizeof(*wqe));
	memset(wqe, 0, offsetof(struct refault_sq_wqe, sge));
	wqe->opcode = opcode;
	wqe->flags = wqe_flags(qp_ex->wr_flags);
	wqe->wr_id = htole64(qp_ex->wr_id);
	qp->sq.head++;
	qp->batch.wqe = wqe;
	return wqe;
}

static struct refault_sq_wqe *wr_begin_remote(struct ibv_qp_ex *qp_ex,
					      uint8_t opcode, uint32_t rkey,
					      uint64_t remote_addr)
{
	struct refault_sq_wqe *wqe = wr_begin(qp_ex, opcode);

	if (wqe)
		wqe_set_remote(wqe, remote_addr, rkey);
	return wqe;
}

static void wr_send(struct ibv_qp_ex *qp_ex)
{
	wr_begin(qp_ex, REFAULT_OP_SEND);
}

static void wr_send_imm(struct ibv_qp_ex *qp_ex, __be32 imm)
{
	struct refault_sq_wqe *wqe = wr_begin(qp_ex, REFAULT_OP_SEND_IMM);

	if (wqe)
		wqe_set_imm(wqe, imm);
}

static void wr_rdma_write(struct ibv_qp_ex *qp_ex, uint32_t rkey,
			  uint64_t remote_addr)
{
	wr_begin_remote(qp_ex, REFAULT_OP_RDMA_WRITE, rkey, remote_addr);
}

static void wr_rdma_write_imm(struct ibv_qp_ex *qp_ex, uint32_t rkey,
			      uint64_t remote_addr, __be32 imm)
{
	struct refault_sq_wqe *wqe = wr_begin_remote(
		qp_ex, REFAULT_OP_RDMA_WRITE_IMM, rkey, remote_addr);

	if (wqe)
		wqe_set_imm(wqe, imm);
}

static void wr_rdma_read(struct ibv_qp_ex *qp_ex, uint32_t rkey,
			 uint64_t remote_addr)
{
	wr_begin_remote(qp_ex, REFAULT_OP_RDMA_READ, rkey, remote_addr);
}

static void wr_atomic_cmp_swp(struct ibv_qp_ex *qp_ex, uint32_t rkey,
			      uint64_t remote_addr, uint64_t compare,
			      uint64_t swap)
{
	struct refault_sq_wqe *wqe = wr_begin_remote(
		qp_ex, REFAULT_OP_COMPARE_SWAP, rkey, remote_addr);

	if (!wqe)
		return;
	wqe->compare_add = htole64(compare);
	wqe->swap = htole64(swap);
}

static void wr_atomic_fetch_add(struct ibv_qp_ex *qp_ex, uint32_t rkey,
				uint64_t remote_addr, uint64_t add)
{
	struct refault_sq_wqe *wqe = wr_begin_remote(
		qp_ex, REFAULT_OP_FETCH_ADD, rkey, remote_addr);

	if (wqe)
		wqe->compare_add = htole64(add);
}

static void wr_atomic_write(struct ibv_qp_ex *qp_ex, uint32_t rkey,
			    uint64_t remote_addr, const void *data)
{
	struct refault_sq_wqe *wqe = wr_begin_remote(
		qp_ex, REFAULT_OP_ATOMIC_WRITE, rkey, remote_addr);

	if (wqe)
		wqe_add_inline(wqe, data, sizeof(uint64_t));
}

/* The selectivity @level is a range, or the whole memory region. */
static void wr_flush(struct ibv_qp_ex *qp_ex, uint32_t rkey,
		     uint64_t remote_addr, size_t length, uint8_t type,
		     uint8_t level)
{
	struct refault_sq_wqe *wqe = wr_begin_remote(qp_ex, REFAULT_OP_FLUSH,
						     rkey, remote_addr);
	uint32_t kind = type;

	if (!wqe)
		return;
	if (level > IBV_FLUSH_MR) {
		batch_fail(&from_ex(qp_ex)->batch, EINVAL);
		return;
	}
	if (level == IBV_FLUSH_RANGE) {
		kind |= REFAULT_FLUSH_RANGE;
		wqe->compare_add = htole64(length);
	}
	wqe->imm = htole32(kind);
}

static void wr_set_ud_addr(struct ibv_qp_ex *qp_ex, struct ibv_ah *ah,
			   uint32_t remote_qpn, uint32_t remote_qkey)
{
	struct refault_sq_wqe *wqe = from_ex(qp_ex)->batch.wqe;

	if (wqe)
		wqe_set_ud(wqe, to_ah(ah), remote_qpn, remote_qkey);
}

static void wr_set_sge_list(struct ibv_qp_ex *qp_ex, size_t count,
			    const struct ibv_sge *list)
{
	struct refault_batch *batch = &from_ex(qp_ex)->batch;

	if (!batch->wqe)
		return;
	if (count > REFAULT_MAX_SGE) {
		batch_fail(batch, EINVAL);
		return;
	}
	batch->wqe->num_sge = count;
	wqe_set_sges(batch->wqe->sge, list, count);
}

static void wr_set_sge(struct ibv_qp_ex *qp_ex, uint32_t lkey, uint64_t addr,
		       uint32_t length)
{
	struct ibv_sge sge = { .addr = addr, .length = length, .lkey = lkey };

	wr_set_sge_list(qp_ex, 1, &sge);
}

static void wr_set_inline_data(struct ibv_qp_ex *qp_ex, void *addr,
			       size_t length)
{
	struct refault_batch *batch = &from_ex(qp_ex)->batch;

	if (batch->wqe && wqe_add_inline(batch->wqe, addr, length))
		batch_fail(batch, EINVAL);
}

static void wr_set_inline_data_list(struct ibv_qp_ex *qp_ex, size_t count,
				    const struct ibv_data_buf *list)
{
	size_t i;

	/* Marks the request as inline even if the list is empty. */
	wr_set_inline_data(qp_ex, NULL, 0);
	for (i = 0; i < count; i++)
		wr_set_inline_data(qp_ex, list[i].addr, list[i].length);
}

/*
 * Sets the functions for operations @ops (IBV_QP_EX_WITH_*). Returns 0, or an
 * errno if one of them is not supported.
 */
int wr_init(struct refault_qp *qp, enum ibv_qp_type type, uint64_t ops)
{
	struct ibv_qp_ex *ex = &qp->vqp.qp_ex;

	if (ops & ~(uint64_t)(type == IBV_QPT_UD ? DATAGRAM_OPS : CONNECTED_OPS))
		return EOPNOTSUPP;

	ex->wr_start = wr_start;
	ex->wr_complete = wr_complete;
	ex->wr_abort = wr_abort;
	ex->wr_set_sge = wr_set_sge;
	ex->wr_set_sge_list = wr_set_sge_list;
	ex->wr_set_inline_data = wr_set_inline_data;
	ex->wr_set_inline_data_list = wr_set_inline_data_list;
	ex->wr_send = wr_send;
	ex->wr_send_imm = wr_send_imm;
	if (type == IBV_QPT_UD) {
		ex->wr_set_ud_addr = wr_set_ud_addr;
		return 0;
	}
	ex->wr_rdma_write = wr_rdma_write;
	ex->wr_rdma_write_imm = wr_rdma_write_imm;
	ex->wr_rdma_read = wr_rdma_read;
	ex->wr_atomic_cmp_swp = wr_atomic_cmp_swp;
	ex->wr_atomic_fetch_add = wr_atomic_fetch_add;
	ex->wr_atomic_write = wr_atomic_write;
	ex->wr_flush = wr_flush;
	return 0;
}
