// SPDX-License-Identifier: GPL-2.0
/*
 * Posting to the kernel's queue pairs, in any context: requests are written to
 * the ring, then the producer index to the doorbell record. Sends also ring the
 * doorbell.
 */

#include "refault.h"

static bool refault_queue_full(const struct refault_queue *queue)
{
	/* Pairs with refault_queue_retire(). */
	return queue->head - smp_load_acquire(&queue->tail) >= queue->size;
}

static void refault_queue_advance(struct refault_queue *queue)
{
	/* Pairs with refault_flush_queue(). */
	smp_store_release(&queue->head, queue->head + 1);
}

static void refault_fill_sges(struct refault_sge *to, const struct ib_sge *from,
			      int count)
{
	int i;

	for (i = 0; i < count; i++) {
		to[i].addr = cpu_to_le64(from[i].addr);
		to[i].length = cpu_to_le32(from[i].length);
		to[i].lkey = cpu_to_le32(from[i].lkey);
	}
}

/* The data of an inline request is at kernel addresses. */
static int refault_fill_inline(struct refault_sq_wqe *wqe,
			       const struct ib_send_wr *wr)
{
	u32 length = 0;
	int i;

	for (i = 0; i < wr->num_sge; i++) {
		const struct ib_sge *sge = &wr->sg_list[i];

		if (sge->length > REFAULT_MAX_INLINE - length)
			return -EINVAL;
		memcpy((u8 *)wqe->sge + length, (void *)(uintptr_t)sge->addr,
		       sge->length);
		length += sge->length;
	}
	wqe->flags |= REFAULT_WQE_INLINE;
	wqe->num_sge = 0;
	wqe->inline_length = cpu_to_le32(length);
	return 0;
}

static void refault_fill_remote(struct refault_sq_wqe *wqe, u64 addr, u32 rkey)
{
	wqe->remote_addr = cpu_to_le64(addr);
	wqe->rkey = cpu_to_le32(rkey);
}

static void refault_fill_rdma(struct refault_sq_wqe *wqe,
			      const struct ib_send_wr *wr, u8 opcode)
{
	wqe->opcode = opcode;
	refault_fill_remote(wqe, rdma_wr(wr)->remote_addr, rdma_wr(wr)->rkey);
}

static void refault_fill_atomic(struct refault_sq_wqe *wqe,
				const struct ib_send_wr *wr, u8 opcode)
{
	const struct ib_atomic_wr *atomic = atomic_wr(wr);

	wqe->opcode = opcode;
	refault_fill_remote(wqe, atomic->remote_addr, atomic->rkey);
	wqe->compare_add = cpu_to_le64(atomic->compare_add);
	wqe->swap = cpu_to_le64(atomic->swap);
}

static void refault_fill_imm(struct refault_sq_wqe *wqe,
			     const struct ib_send_wr *wr)
{
	wqe->imm = (__force __le32)wr->ex.imm_data;
}

static int refault_fill_connected(struct refault_sq_wqe *wqe,
				  const struct ib_send_wr *wr)
{
	switch (wr->opcode) {
	case IB_WR_SEND:
		wqe->opcode = REFAULT_OP_SEND;
		return 0;
	case IB_WR_SEND_WITH_IMM:
		wqe->opcode = REFAULT_OP_SEND_IMM;
		refault_fill_imm(wqe, wr);
		return 0;
	case IB_WR_SEND_WITH_INV:
		wqe->opcode = REFAULT_OP_SEND_INVALIDATE;
		wqe->imm = cpu_to_le32(wr->ex.invalidate_rkey);
		return 0;
	case IB_WR_RDMA_WRITE:
		refault_fill_rdma(wqe, wr, REFAULT_OP_RDMA_WRITE);
		return 0;
	case IB_WR_RDMA_WRITE_WITH_IMM:
		refault_fill_rdma(wqe, wr, REFAULT_OP_RDMA_WRITE_IMM);
		refault_fill_imm(wqe, wr);
		return 0;
	case IB_WR_RDMA_READ:
		refault_fill_rdma(wqe, wr, REFAULT_OP_RDMA_READ);
		return 0;
	case IB_WR_ATOMIC_CMP_AND_SWP:
		refault_fill_atomic(wqe, wr, REFAULT_OP_COMPARE_SWAP);
		return 0;
	case IB_WR_ATOMIC_FETCH_AND_ADD:
		refault_fill_atomic(wqe, wr, REFAULT_OP_FETCH_ADD);
		return 0;
	case IB_WR_REG_MR:
		return refault_fill_register(wqe, reg_wr(wr));
	case IB_WR_LOCAL_INV:
		wqe->opcode = REFAULT_OP_LOCAL_INVALIDATE;
		wqe->imm = cpu_to_le32(wr->ex.invalidate_rkey);
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static void refault_fill_address(struct refault_sq_wqe *wqe,
				 const struct refault_ah *ah)
{
	u8 *next_hop = (u8 *)&wqe->remote_addr;

	memcpy(next_hop, ah->dmac, sizeof(ah->dmac));
	next_hop[6] = ah->sgid_index;
	next_hop[7] = ah->hop_limit;
	wqe->rkey = cpu_to_le32(ah->flow_label | (u32)ah->traffic_class << 20);
	wqe->source_port = cpu_to_le16(ah->source_port);
	wqe->sl = ah->sl;
	wqe->has_grh = 1;
	/* Datagrams have no operands: the fields hold halves of the raw GID. */
	memcpy(&wqe->compare_add, ah->dgid, sizeof(wqe->compare_add));
	memcpy(&wqe->swap, ah->dgid + sizeof(wqe->compare_add),
	       sizeof(wqe->swap));
}

static int refault_fill_datagram(struct refault_sq_wqe *wqe,
				 const struct ib_send_wr *wr)
{
	const struct ib_ud_wr *ud = ud_wr(wr);

	if (wr->opcode != IB_WR_SEND && wr->opcode != IB_WR_SEND_WITH_IMM)
		return -EOPNOTSUPP;
	wqe->dest_qpn = cpu_to_le32(ud->remote_qpn);
	wqe->qkey = cpu_to_le32(ud->remote_qkey);
	refault_fill_address(wqe, to_rah(ud->ah));
	return refault_fill_connected(wqe, wr);
}

static u8 refault_wqe_flags(int send_flags)
{
	return (send_flags & IB_SEND_SIGNALED ? REFAULT_WQE_SIGNALED : 0) |
	       (send_flags & IB_SEND_SOLICITED ? REFAULT_WQE_SOLICITED : 0) |
	       (send_flags & IB_SEND_FENCE ? REFAULT_WQE_FENCE : 0);
}

/* Starts a request in the slot behind the head. */
static struct refault_sq_wqe *refault_sq_slot(struct refault_queue *sq, u64 id)
{
	struct refault_sq_wqe *wqe = sq->ring;

	wqe += sq->head & (sq->size - 1);
	memset(wqe, 0, offsetof(struct refault_sq_wqe, sge));
	wqe->wr_id = cpu_to_le64(id);
	return wqe;
}

static int refault_post_one_send(struct refault_qp *qp,
				 const struct ib_send_wr *wr)
{
	bool connected = qp->ibqp.qp_type == IB_QPT_RC;
	struct refault_queue *sq = &qp->rings.sq;
	struct refault_sq_wqe *wqe;
	int ret;

	if (refault_queue_full(sq))
		return -ENOMEM;
	if (wr->num_sge < 0 || wr->num_sge > REFAULT_MAX_SGE)
		return -EINVAL;
	wqe = refault_sq_slot(sq, wr->wr_id);
	wqe->flags = refault_wqe_flags(wr->send_flags);
	wqe->num_sge = wr->num_sge;
	ret = connected ? refault_fill_connected(wqe, wr) :
			  refault_fill_datagram(wqe, wr);
	if (ret)
		return ret;
	if (wr->send_flags & IB_SEND_INLINE)
		ret = refault_fill_inline(wqe, wr);
	else
		refault_fill_sges(wqe->sge, wr->sg_list, wr->num_sge);
	if (ret)
		return ret;
	refault_queue_advance(sq);
	return 0;
}

/* Publishes what was posted, and rings the doorbell. Holding the lock. */
void refault_ring_send(struct refault_qp *qp)
{
	/* The requests are visible to the NIC before the index. */
	dma_wmb();
	WRITE_ONCE(qp->rings.record->sq_producer, cpu_to_le32(qp->rings.sq.head));
	refault_kernel_ring(to_rdev(qp->ibqp.device), REFAULT_DOORBELL_SQ,
			    qp->qpn, 0);
}

int refault_post_send(struct ib_qp *ibqp, const struct ib_send_wr *wr,
		      const struct ib_send_wr **bad_wr)
{
	struct refault_qp *qp = to_rqp(ibqp);
	struct refault_queue *sq = &qp->rings.sq;
	unsigned long flags;
	int ret = 0;
	u32 before;

	*bad_wr = wr;
	/* A process posts to its own. */
	if (!refault_is_kernel_qp(qp))
		return -EINVAL;
	spin_lock_irqsave(&sq->lock, flags);
	before = sq->head;
	for (; !ret && wr; wr = ret ? wr : wr->next) {
		ret = refault_post_one_send(qp, wr);
		if (ret)
			*bad_wr = wr;
	}
	if (sq->head != before)
		refault_ring_send(qp);
	spin_unlock_irqrestore(&sq->lock, flags);
	return ret;
}

/*
 * Publishes what was posted. Receives need a doorbell only to be flushed in the
 * error state: the NIC says so in the record, and then reads the index. With
 * the barrier, either it sees what was published, or we see this. Holding the
 * lock.
 */
void refault_ring_recv(struct refault_qp *qp)
{
	struct refault_qp_doorbell_record *record = qp->rings.record;
	struct refault_dev *dev = to_rdev(qp->ibqp.device);

	/* The requests are visible to the NIC before the index. */
	dma_wmb();
	WRITE_ONCE(record->rq_producer, cpu_to_le32(qp->rings.rq.head));
	/* As the comment above says. */
	mb();
	if (READ_ONCE(record->in_error) || refault_is_dead(dev))
		refault_kernel_ring(dev, REFAULT_DOORBELL_SQ, qp->qpn, 0);
}

static int refault_post_one_recv(struct refault_qp *qp,
				 const struct ib_recv_wr *wr)
{
	struct refault_queue *rq = &qp->rings.rq;
	struct refault_rq_wqe *wqe = rq->ring;

	if (refault_queue_full(rq))
		return -ENOMEM;
	if (wr->num_sge < 0 || wr->num_sge > REFAULT_MAX_SGE)
		return -EINVAL;
	wqe += rq->head & (rq->size - 1);
	memset(wqe, 0, offsetof(struct refault_rq_wqe, sge));
	wqe->wr_id = cpu_to_le64(wr->wr_id);
	wqe->num_sge = cpu_to_le32(wr->num_sge);
	refault_fill_sges(wqe->sge, wr->sg_list, wr->num_sge);
	refault_queue_advance(rq);
	return 0;
}

int refault_post_recv(struct ib_qp *ibqp, const struct ib_recv_wr *wr,
		      const struct ib_recv_wr **bad_wr)
{
	struct refault_qp *qp = to_rqp(ibqp);
	struct refault_queue *rq = &qp->rings.rq;
	unsigned long flags;
	int ret = 0;

	*bad_wr = wr;
	if (!refault_is_kernel_qp(qp))
		return -EINVAL;
	spin_lock_irqsave(&rq->lock, flags);
	for (; !ret && wr; wr = ret ? wr : wr->next) {
		ret = refault_post_one_recv(qp, wr);
		if (ret)
			*bad_wr = wr;
	}
	refault_ring_recv(qp);
	spin_unlock_irqrestore(&rq->lock, flags);
	return ret;
}
