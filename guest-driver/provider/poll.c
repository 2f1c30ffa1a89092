// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Taking completions out of a completion queue. An entry is whole when its
 * phase is that of the current pass over the ring; an empty poll reads one
 * word of memory, and nothing of the NIC.
 */

#include <endian.h>
#include <string.h>

#include <util/udma_barrier.h>

#include "provider.h"

/* By the NIC's operation: what the requester did, and what its peer got. */
static const struct {
	enum ibv_wc_opcode sent;
	enum ibv_wc_opcode received;
} wc_opcodes[] = {
	[REFAULT_OP_SEND] = { IBV_WC_SEND, IBV_WC_RECV },
	[REFAULT_OP_SEND_IMM] = { IBV_WC_SEND, IBV_WC_RECV },
	[REFAULT_OP_RDMA_WRITE] = { IBV_WC_RDMA_WRITE, IBV_WC_RECV },
	[REFAULT_OP_RDMA_WRITE_IMM] = { IBV_WC_RDMA_WRITE,
					IBV_WC_RECV_RDMA_WITH_IMM },
	[REFAULT_OP_RDMA_READ] = { IBV_WC_RDMA_READ, IBV_WC_RECV },
	[REFAULT_OP_COMPARE_SWAP] = { IBV_WC_COMP_SWAP, IBV_WC_RECV },
	[REFAULT_OP_FETCH_ADD] = { IBV_WC_FETCH_ADD, IBV_WC_RECV },
};

/* Verbs has the same numbers. */
static_assert(IBV_WC_SUCCESS == REFAULT_WC_SUCCESS, "status");
static_assert(IBV_WC_REM_ACCESS_ERR == REFAULT_WC_REM_ACCESS_ERR, "status");
static_assert(IBV_WC_RNR_RETRY_EXC_ERR == REFAULT_WC_RNR_RETRY_EXC_ERR,
	      "status");

static struct refault_cqe *cqe_at(const struct refault_cq *cq, uint32_t index)
{
	return &cq->ring[index & ((1U << cq->log_size) - 1)];
}

/* Whether the NIC has written entry `index`. */
static bool cqe_is_valid(const struct refault_cq *cq, uint32_t index)
{
	const struct refault_cqe *cqe = cqe_at(cq, index);
	uint32_t owner = le32toh(*(const volatile __le32 *)&cqe->owner);

	return (owner & REFAULT_OWNER_PHASE) == (~(index >> cq->log_size) & 1);
}

/* Tells the NIC that entries before the consumer index may be overwritten. */
static void cq_publish_consumer(struct refault_cq *cq)
{
	udma_ordering_write_barrier();
	atomic_store_explicit((_Atomic __le32 *)&cq->record->consumer,
			      htole32(cq->consumer), memory_order_release);
}

/*
 * The NIC took the queue pair to the error state. It flushed what it saw
 * posted; what was posted meanwhile it finds when it is rung.
 */
static void qp_failed(struct refault_context *context, struct refault_qp *qp)
{
	if (!atomic_exchange(&qp->failed, true))
		ring_doorbell(context, REFAULT_DOORBELL_SQ, qp->vqp.qp.qp_num,
			      0);
}

/* Makes room in the queue that the request came from. */
static void retire_request(struct refault_context *context,
			   const struct refault_cqe *cqe)
{
	struct refault_qp *qp = qp_table_find(context, le32toh(cqe->qpn));
	struct refault_queue *queue;

	if (!qp)
		return;
	queue = cqe->flags & REFAULT_CQE_RECEIVE ? &qp->rq : &qp->sq;
	atomic_store_explicit(&queue->tail, le32toh(cqe->wqe_index) + 1,
			      memory_order_release);
	if (cqe->status != REFAULT_WC_SUCCESS)
		qp_failed(context, qp);
}

static void fill_wc(struct ibv_wc *wc, const struct refault_cqe *cqe)
{
	bool received = cqe->flags & REFAULT_CQE_RECEIVE;

	wc->wr_id = le64toh(cqe->wr_id);
	wc->status = cqe->status;
	wc->vendor_err = le32toh(cqe->vendor_error);
	wc->qp_num = le32toh(cqe->qpn);
	wc->src_qp = le32toh(cqe->src_qpn);
	wc->byte_len = le32toh(cqe->byte_len);
	/* As the sender wrote it: not a number to the NIC. */
	memcpy(&wc->imm_data, &cqe->imm, sizeof(wc->imm_data));
	wc->wc_flags = cqe->flags & REFAULT_CQE_WITH_IMM ? IBV_WC_WITH_IMM : 0;
	wc->opcode = received ? IBV_WC_RECV : IBV_WC_SEND;
	if (cqe->opcode < sizeof(wc_opcodes) / sizeof(*wc_opcodes))
		wc->opcode = received ? wc_opcodes[cqe->opcode].received :
					wc_opcodes[cqe->opcode].sent;
	wc->pkey_index = 0;
	wc->slid = 0;
	wc->sl = 0;
	wc->dlid_path_bits = 0;
}

int refault_poll_cq(struct ibv_cq *ibcq, int count, struct ibv_wc *wc)
{
	struct refault_context *context = to_context(ibcq->context);
	struct refault_cq *cq = to_cq(ibcq);
	int taken = 0;

	pthread_spin_lock(&cq->lock);
	while (taken < count && cqe_is_valid(cq, cq->consumer)) {
		const struct refault_cqe *cqe = cqe_at(cq, cq->consumer);

		/* The phase was written last: the rest is read after it. */
		udma_from_device_barrier();
		fill_wc(&wc[taken], cqe);
		retire_request(context, cqe);
		cq->consumer++;
		taken++;
	}
	if (taken)
		cq_publish_consumer(cq);
	pthread_spin_unlock(&cq->lock);
	return taken;
}

/* Two queues, in an order that everybody keeps; they may be one. */
void cq_lock_pair(struct refault_cq *a, struct refault_cq *b)
{
	pthread_spin_lock(a->cqn <= b->cqn ? &a->lock : &b->lock);
	if (a != b)
		pthread_spin_lock(a->cqn <= b->cqn ? &b->lock : &a->lock);
}

void cq_unlock_pair(struct refault_cq *a, struct refault_cq *b)
{
	pthread_spin_unlock(&a->lock);
	if (a != b)
		pthread_spin_unlock(&b->lock);
}

/*
 * Removes the completions of a queue pair that is gone or was reset; the NIC
 * writes no more of them. The others move up to close the gaps, each into the
 * phase of its new place. The caller holds the queue's lock.
 */
void cq_forget_qp(struct refault_cq *cq, uint32_t qpn)
{
	uint32_t end = cq->consumer, removed = 0, index;

	while (end - cq->consumer < 1U << cq->log_size && cqe_is_valid(cq, end))
		end++;
	udma_from_device_barrier();
	for (index = end; index != cq->consumer;) {
		const struct refault_cqe *cqe = cqe_at(cq, --index);

		if (le32toh(cqe->qpn) == qpn)
			removed++;
		else if (removed)
			memcpy(cqe_at(cq, index + removed), cqe,
			       offsetof(struct refault_cqe, owner));
	}
	if (removed) {
		cq->consumer += removed;
		cq_publish_consumer(cq);
	}
}
