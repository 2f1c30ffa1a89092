// SPDX-License-Identifier: GPL-2.0
/*
 * Polling the kernel's completion queues. An entry is valid when its phase fits
 * the current pass over the ring. All functions but the two verbs want the lock
 * of the ring to be held, or no other that polls.
 *
 * A dead NIC completes nothing: then polling returns the requests that are left
 * as flushed, so that ULPs can end. Otherwise they would wait for ever.
 */

#include "refault.h"

/* Verbs opcodes by the NIC's: of the requester. */
static const enum ib_wc_opcode refault_sent_opcodes[] = {
	[REFAULT_OP_SEND] = IB_WC_SEND,
	[REFAULT_OP_SEND_IMM] = IB_WC_SEND,
	[REFAULT_OP_RDMA_WRITE] = IB_WC_RDMA_WRITE,
	[REFAULT_OP_RDMA_WRITE_IMM] = IB_WC_RDMA_WRITE,
	[REFAULT_OP_RDMA_READ] = IB_WC_RDMA_READ,
	[REFAULT_OP_COMPARE_SWAP] = IB_WC_COMP_SWAP,
	[REFAULT_OP_FETCH_ADD] = IB_WC_FETCH_ADD,
	[REFAULT_OP_SEND_INVALIDATE] = IB_WC_SEND,
	[REFAULT_OP_REGISTER] = IB_WC_REG_MR,
	[REFAULT_OP_LOCAL_INVALIDATE] = IB_WC_LOCAL_INV,
};

/* Status codes are those of verbs. */
static_assert(IB_WC_SUCCESS == REFAULT_WC_SUCCESS);
static_assert(IB_WC_WR_FLUSH_ERR == REFAULT_WC_WR_FLUSH_ERR);
static_assert(IB_WC_RNR_RETRY_EXC_ERR == REFAULT_WC_RNR_RETRY_EXC_ERR);

static struct refault_cqe *refault_cqe_at(const struct refault_cq_ring *ring,
					  u32 index)
{
	return &ring->entries[index & (BIT(ring->log_size) - 1)];
}

/* Whether the NIC has written entry @index. */
static bool refault_cqe_valid(const struct refault_cq_ring *ring, u32 index)
{
	u32 owner = le32_to_cpu(READ_ONCE(refault_cqe_at(ring, index)->owner));
	/* The first pass over the ring writes phase 1, the second 0. */
	bool phase = !((index >> ring->log_size) & 1);

	return (owner & REFAULT_OWNER_PHASE) == phase;
}

/* The next entry, or NULL. Valid until refault_cq_publish(). */
const struct refault_cqe *refault_cq_take(struct refault_cq *cq)
{
	struct refault_cq_ring *ring = &cq->ring;

	if (!refault_cqe_valid(ring, ring->consumer))
		return NULL;
	/* The NIC writes the phase last: read it before the rest. */
	dma_rmb();
	return refault_cqe_at(ring, ring->consumer++);
}

/* Lets the NIC overwrite entries that were taken. */
void refault_cq_publish(struct refault_cq *cq)
{
	/* Our accesses to these entries come before. */
	dma_mb();
	WRITE_ONCE(cq->ring.record->consumer, cpu_to_le32(cq->ring.consumer));
}

/*
 * Asks for the next event. The doorbell has the consumer index, so that the NIC
 * sends it at once if there are entries that were not taken.
 */
void refault_cq_arm(struct refault_cq *cq, u64 kind)
{
	refault_kernel_ring(to_rdev(cq->ibcq.device), kind, cq->cqn,
			    READ_ONCE(cq->ring.consumer));
}

/*
 * Removes the completions of a queue pair that was destroyed or reset, so that
 * the NIC writes none. The others move up to close the gaps, but for their owner
 * words: each slot has the right phase already.
 */
void refault_cq_forget(struct refault_cq *cq, u32 qpn)
{
	struct refault_cq_ring *ring = &cq->ring;
	u32 end = ring->consumer, removed = 0, index;

	while (end - ring->consumer < BIT(ring->log_size) &&
	       refault_cqe_valid(ring, end))
		end++;
	dma_rmb();
	for (index = end; index != ring->consumer;) {
		const struct refault_cqe *cqe = refault_cqe_at(ring, --index);

		if (le32_to_cpu(cqe->qpn) == qpn)
			removed++;
		else if (removed)
			memcpy(refault_cqe_at(ring, index + removed), cqe,
			       offsetof(struct refault_cqe, owner));
	}
	ring->consumer += removed;
	refault_cq_publish(cq);
}

static void refault_fill_received(struct ib_wc *wc,
				  const struct refault_cqe *cqe)
{
	u16 vlan = le16_to_cpu(cqe->vlan);

	wc->opcode = cqe->opcode == REFAULT_OP_RDMA_WRITE_IMM ?
			     IB_WC_RECV_RDMA_WITH_IMM : IB_WC_RECV;
	wc->src_qp = le32_to_cpu(cqe->src_qpn);
	wc->sl = cqe->sl;
	if (cqe->flags & REFAULT_CQE_GRH) {
		wc->wc_flags |= IB_WC_GRH | IB_WC_WITH_NETWORK_HDR_TYPE;
		wc->network_hdr_type = cqe->flags & REFAULT_CQE_IPV4 ?
					       RDMA_NETWORK_IPV4 :
					       RDMA_NETWORK_IPV6;
	}
	if (cqe->flags & REFAULT_CQE_VLAN) {
		wc->wc_flags |= IB_WC_WITH_VLAN;
		wc->vlan_id = vlan & VLAN_VID_MASK;
		wc->sl = (vlan & VLAN_PRIO_MASK) >> VLAN_PRIO_SHIFT;
	}
}

static void refault_fill_wc(struct ib_wc *wc, const struct refault_cqe *cqe,
			    struct refault_qp *qp)
{
	memset(wc, 0, sizeof(*wc));
	wc->wr_id = le64_to_cpu(cqe->wr_id);
	wc->status = cqe->status;
	wc->vendor_err = le32_to_cpu(cqe->vendor_error);
	wc->byte_len = le32_to_cpu(cqe->byte_len);
	wc->qp = &qp->ibqp;
	wc->port_num = 1;
	if (cqe->flags & REFAULT_CQE_WITH_IMM) {
		wc->wc_flags |= IB_WC_WITH_IMM;
		/* The NIC passes it on as it is: big endian. */
		wc->ex.imm_data = (__force __be32)cqe->imm;
	}
	if (cqe->flags & REFAULT_CQE_INVALIDATED) {
		wc->wc_flags |= IB_WC_WITH_INVALIDATE;
		wc->ex.invalidate_rkey = le32_to_cpu(cqe->imm);
	}
	if (cqe->flags & REFAULT_CQE_RECEIVE)
		refault_fill_received(wc, cqe);
	else if (cqe->opcode < ARRAY_SIZE(refault_sent_opcodes))
		wc->opcode = refault_sent_opcodes[cqe->opcode];
}

/* All slots up to that of the completed request are free. */
void refault_queue_retire(struct refault_queue *queue,
			  const struct refault_cqe *cqe)
{
	/* Pairs with refault_queue_full(). */
	smp_store_release(&queue->tail, le32_to_cpu(cqe->wqe_index) + 1);
}

/* Returns how many entries of @wc were filled. */
static int refault_poll_nic(struct refault_cq *cq, int count, struct ib_wc *wc)
{
	struct refault_dev *dev = to_rdev(cq->ibcq.device);
	const struct refault_cqe *cqe;
	struct refault_qp *qp;
	int taken = 0;

	while (taken < count && (cqe = refault_cq_take(cq))) {
		/* It stays while we hold the lock: see qp.c. */
		qp = xa_load(&dev->qps, le32_to_cpu(cqe->qpn));
		if (!qp)
			continue;
		refault_queue_retire(cqe->flags & REFAULT_CQE_RECEIVE ?
				     &qp->rings.rq : &qp->rings.sq, cqe);
		refault_fill_wc(&wc[taken++], cqe, qp);
	}
	refault_cq_publish(cq);
	return taken;
}

/* Returns requests as flushed; @wr_id is the offset of that field in a WQE. */
static int refault_flush_queue(struct refault_qp *qp,
			       struct refault_queue *queue, size_t wqe_size,
			       size_t wr_id, int count, struct ib_wc *wc)
{
	/* Pairs with refault_queue_advance(): see whole requests. */
	u32 head = smp_load_acquire(&queue->head);
	const __le64 *id;
	int taken = 0;

	while (taken < count && queue->tail != head) {
		id = queue->ring + (queue->tail & (queue->size - 1)) * wqe_size +
		     wr_id;
		memset(&wc[taken], 0, sizeof(*wc));
		wc[taken].wr_id = le64_to_cpu(*id);
		wc[taken].status = IB_WC_WR_FLUSH_ERR;
		wc[taken++].qp = &qp->ibqp;
		/* Pairs with refault_queue_full(). */
		smp_store_release(&queue->tail, queue->tail + 1);
	}
	return taken;
}

/* The same, after the NIC died. */
static int refault_poll_dead(struct refault_cq *cq, int count, struct ib_wc *wc)
{
	struct refault_qp *qp;
	int taken = 0;

	list_for_each_entry(qp, &cq->ring.senders, rings.sender)
		taken += refault_flush_queue(qp, &qp->rings.sq,
					     REFAULT_SQ_WQE_SIZE,
					     offsetof(struct refault_sq_wqe, wr_id),
					     count - taken, wc + taken);
	list_for_each_entry(qp, &cq->ring.receivers, rings.receiver)
		taken += refault_flush_queue(qp, &qp->rings.rq,
					     REFAULT_RQ_WQE_SIZE,
					     offsetof(struct refault_rq_wqe, wr_id),
					     count - taken, wc + taken);
	return taken;
}

int refault_poll_cq(struct ib_cq *ibcq, int count, struct ib_wc *wc)
{
	struct refault_cq *cq = to_rcq(ibcq);
	unsigned long flags;
	int taken;

	/* A process polls its own. */
	if (!refault_is_kernel_cq(cq))
		return -EINVAL;
	spin_lock_irqsave(&cq->ring.lock, flags);
	taken = refault_poll_nic(cq, count, wc);
	if (taken < count && refault_is_dead(to_rdev(ibcq->device))) {
		/* What it wrote before it died, then what it did not. */
		smp_rmb();
		taken += refault_poll_nic(cq, count - taken, wc + taken);
		taken += refault_poll_dead(cq, count - taken, wc + taken);
	}
	spin_unlock_irqrestore(&cq->ring.lock, flags);
	return taken;
}

/* Whether polling would return something, after the NIC died. */
static bool refault_cq_left(struct refault_cq *cq)
{
	struct refault_cq_ring *ring = &cq->ring;
	struct refault_qp *qp;
	unsigned long flags;
	bool left;

	spin_lock_irqsave(&ring->lock, flags);
	left = refault_cqe_valid(ring, ring->consumer);
	list_for_each_entry(qp, &ring->senders, rings.sender)
		left |= READ_ONCE(qp->rings.sq.head) != qp->rings.sq.tail;
	list_for_each_entry(qp, &ring->receivers, rings.receiver)
		left |= READ_ONCE(qp->rings.rq.head) != qp->rings.rq.tail;
	spin_unlock_irqrestore(&ring->lock, flags);
	return left;
}

/* A dead NIC sends no event. Those who poll until nothing is left may sleep. */
static int refault_notify_dead(struct refault_cq *cq,
			       enum ib_cq_notify_flags flags)
{
	if (!refault_cq_left(cq))
		return 0;
	if (flags & IB_CQ_REPORT_MISSED_EVENTS)
		return 1;
	schedule_work(&to_rdev(cq->ibcq.device)->dead_work);
	return 0;
}

/* A NIC that is alive misses nothing. */
int refault_req_notify_cq(struct ib_cq *ibcq, enum ib_cq_notify_flags flags)
{
	struct refault_cq *cq = to_rcq(ibcq);
	bool solicited = (flags & IB_CQ_SOLICITED_MASK) == IB_CQ_SOLICITED;

	if (!refault_is_kernel_cq(cq))
		return -EINVAL;
	if (refault_is_dead(to_rdev(ibcq->device)))
		return refault_notify_dead(cq, flags);
	refault_cq_arm(cq, solicited ? REFAULT_DOORBELL_CQ_ARM_SOLICITED :
				       REFAULT_DOORBELL_CQ_ARM);
	return 0;
}
