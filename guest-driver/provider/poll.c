// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Polling completion queues. An entry is valid when its phase bit matches the
 * current pass over the ring. Polling an empty queue reads one word of memory
 * and does not access the NIC.
 */

#include <endian.h>
#include <string.h>

#include <util/udma_barrier.h>

#include "provider.h"

/* Verbs opcodes by the NIC's: of the requester, and of the responder. */
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
	[REFAULT_OP_FLUSH] = { IBV_WC_FLUSH, IBV_WC_RECV },
	[REFAULT_OP_ATOMIC_WRITE] = { IBV_WC_ATOMIC_WRITE, IBV_WC_RECV },
};

/* Status codes are those of verbs. */
static_assert(IBV_WC_SUCCESS == REFAULT_WC_SUCCESS, "status");
static_assert(IBV_WC_REM_ACCESS_ERR == REFAULT_WC_REM_ACCESS_ERR, "status");
static_assert(IBV_WC_RNR_RETRY_EXC_ERR == REFAULT_WC_RNR_RETRY_EXC_ERR,
	      "status");

/* The service level of a datagram on RoCE, in hardware's convention. */
enum {
	SL_IPV6 = 1,
	SL_IPV4 = 2,
	SL_UDP = 8,
};

void cq_lock(struct refault_cq *cq)
{
	if (!cq->single_threaded)
		pthread_spin_lock(&cq->lock);
}

void cq_unlock(struct refault_cq *cq)
{
	if (!cq->single_threaded)
		pthread_spin_unlock(&cq->lock);
}

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

/*
 * Lets the NIC overwrite entries before the consumer index. Barrier and release
 * order our reads of these entries, and the moves of cq_forget_qp(), before it.
 */
void cq_publish_consumer(struct refault_cq *cq)
{
	udma_ordering_write_barrier();
	atomic_store_explicit((_Atomic __le32 *)&cq->record->consumer,
			      htole32(cq->consumer), memory_order_release);
}

/*
 * The NIC moved the queue pair, or its send queue, to the error state. It has
 * flushed the requests that it saw; requests posted since then are flushed when
 * the doorbell is rung again.
 */
static void qp_failed(struct refault_context *context, struct refault_qp *qp)
{
	if (!atomic_exchange(&qp->failed, true))
		ring_doorbell(context, REFAULT_DOORBELL_SQ, qp->vqp.qp.qp_num,
			      0);
}

/* Advances the tail of the queue that the request was posted to. */
static void retire_request(struct refault_context *context,
			   const struct refault_cqe *cqe)
{
	struct refault_qp *qp = qp_table_find(context, le32toh(cqe->qpn));
	struct refault_queue *queue;

	if (!qp)
		return;
	queue = cqe->flags & REFAULT_CQE_RECEIVE ? &qp->rq : &qp->sq;
	/* The tail of an SRQ comes from its doorbell record instead. */
	if (queue == &qp->sq || !qp->vqp.qp.srq)
		atomic_store_explicit(&queue->tail,
				      le32toh(cqe->wqe_index) + 1,
				      memory_order_release);
	if (cqe->status != REFAULT_WC_SUCCESS)
		qp_failed(context, qp);
}

/* The next entry, or NULL. Valid until cq_publish_consumer(). */
const struct refault_cqe *cq_take(struct refault_cq *cq)
{
	const struct refault_cqe *cqe = cqe_at(cq, cq->consumer);

	if (!cqe_is_valid(cq, cq->consumer))
		return NULL;
	/* The NIC writes the phase last: read it before the rest. */
	udma_from_device_barrier();
	retire_request(to_context(cq->vcq.cq.context), cqe);
	cq->consumer++;
	return cqe;
}

enum ibv_wc_opcode cqe_opcode(const struct refault_cqe *cqe)
{
	bool received = cqe->flags & REFAULT_CQE_RECEIVE;

	if (cqe->opcode >= sizeof(wc_opcodes) / sizeof(*wc_opcodes))
		return received ? IBV_WC_RECV : IBV_WC_SEND;
	return received ? wc_opcodes[cqe->opcode].received :
			  wc_opcodes[cqe->opcode].sent;
}

unsigned int cqe_wc_flags(const struct refault_cqe *cqe)
{
	return (cqe->flags & REFAULT_CQE_WITH_IMM ? IBV_WC_WITH_IMM : 0) |
	       (cqe->flags & REFAULT_CQE_GRH ? IBV_WC_GRH : 0);
}

/* The NIC does not convert immediate data: it is big-endian as sent. */
__be32 cqe_imm_data(const struct refault_cqe *cqe)
{
	__be32 imm;

	memcpy(&imm, &cqe->imm, sizeof(imm));
	return imm;
}

/*
 * RoCE, whose datagrams have no LID, has no service level either. Hardware says
 * here by which header a datagram came (annex A17.4.5.1 wants it said, and verbs
 * have no other field); UCX drops one by IPv4 otherwise.
 */
uint8_t cqe_sl(const struct refault_cqe *cqe)
{
	if (!(cqe->flags & REFAULT_CQE_GRH) || cqe->src_lid)
		return cqe->sl;
	return SL_UDP | (cqe->flags & REFAULT_CQE_IPV4 ? SL_IPV4 : SL_IPV6);
}

static void fill_wc(struct ibv_wc *wc, const struct refault_cqe *cqe)
{
	wc->wr_id = le64toh(cqe->wr_id);
	wc->status = cqe->status;
	wc->vendor_err = le32toh(cqe->vendor_error);
	wc->qp_num = le32toh(cqe->qpn);
	wc->src_qp = le32toh(cqe->src_qpn);
	wc->byte_len = le32toh(cqe->byte_len);
	wc->imm_data = cqe_imm_data(cqe);
	wc->wc_flags = cqe_wc_flags(cqe);
	wc->opcode = cqe_opcode(cqe);
	wc->pkey_index = 0;
	wc->slid = le16toh(cqe->src_lid);
	wc->sl = cqe_sl(cqe);
	wc->dlid_path_bits = 0;
}

int refault_poll_cq(struct ibv_cq *ibcq, int count, struct ibv_wc *wc)
{
	struct refault_cq *cq = to_cq(ibcq);
	const struct refault_cqe *cqe;
	int taken = 0;

	cq_lock(cq);
	while (taken < count && (cqe = cq_take(cq)))
		fill_wc(&wc[taken++], cqe);
	if (taken)
		cq_publish_consumer(cq);
	cq_unlock(cq);
	return taken;
}

/* Locks two queues, which may be the same, in order of number: no deadlock. */
void cq_lock_pair(struct refault_cq *a, struct refault_cq *b)
{
	cq_lock(a->cqn <= b->cqn ? a : b);
	if (a != b)
		cq_lock(a->cqn <= b->cqn ? b : a);
}

void cq_unlock_pair(struct refault_cq *a, struct refault_cq *b)
{
	cq_unlock(a);
	if (a != b)
		cq_unlock(b);
}

/*
 * Removes the completions of a queue pair that was destroyed or reset; the NIC
 * writes no more of them. The other entries move up to close the gaps. Their
 * owner words are not copied, since each slot already has the right phase. The
 * caller holds the lock.
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
