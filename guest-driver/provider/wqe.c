// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Building work requests and publishing them: the code that ibv_post_*() and
 * ibv_wr_*(), and all kinds of queues, share.
 */

#include <endian.h>
#include <errno.h>
#include <string.h>

#include <util/udma_barrier.h>

#include "provider.h"

bool queue_is_full(struct refault_queue *queue)
{
	uint32_t tail = atomic_load_explicit(&queue->tail,
					     memory_order_acquire);

	return queue->head - tail >= queue->size;
}

/* Where the next entry goes. */
void *queue_slot(struct refault_queue *queue, size_t entry_size)
{
	return (char *)queue->ring +
	       (queue->head & (queue->size - 1)) * entry_size;
}

/* The barrier makes the entries visible to the NIC before the index. */
void publish_producer(__le32 *index, uint32_t value)
{
	udma_ordering_write_barrier();
	atomic_store_explicit((_Atomic __le32 *)index, htole32(value),
			      memory_order_release);
}

/* Publishes staged sends and rings the doorbell. The caller holds the lock. */
void ring_send(struct refault_qp *qp)
{
	publish_producer(&qp->record->sq_producer, qp->sq.head);
	ring_doorbell(to_context(qp->vqp.qp.context), REFAULT_DOORBELL_SQ,
		      qp->vqp.qp.qp_num, 0);
}

uint8_t wqe_flags(unsigned int send_flags)
{
	return (send_flags & IBV_SEND_SIGNALED ? REFAULT_WQE_SIGNALED : 0) |
	       (send_flags & IBV_SEND_SOLICITED ? REFAULT_WQE_SOLICITED : 0) |
	       (send_flags & IBV_SEND_FENCE ? REFAULT_WQE_FENCE : 0);
}

void wqe_set_sges(struct refault_sge *to, const struct ibv_sge *from, int count)
{
	int i;

	for (i = 0; i < count; i++) {
		to[i].addr = htole64(from[i].addr);
		to[i].length = htole32(from[i].length);
		to[i].lkey = htole32(from[i].lkey);
	}
}

/* Appends inline data to the request. Returns 0 or an errno. */
int wqe_add_inline(struct refault_sq_wqe *wqe, const void *from, size_t length)
{
	uint32_t before = le32toh(wqe->inline_length);

	if (length > REFAULT_MAX_INLINE - before)
		return EINVAL;
	wqe->flags |= REFAULT_WQE_INLINE;
	wqe->num_sge = 0;
	if (length)
		memcpy((char *)wqe->sge + before, from, length);
	wqe->inline_length = htole32(before + length);
	return 0;
}

void wqe_set_remote(struct refault_sq_wqe *wqe, uint64_t addr, uint32_t rkey)
{
	wqe->remote_addr = htole64(addr);
	wqe->rkey = htole32(rkey);
}

/* Immediate data is passed through in big-endian order. */
void wqe_set_imm(struct refault_sq_wqe *wqe, __be32 imm)
{
	memcpy(&wqe->imm, &imm, sizeof(wqe->imm));
}

void wqe_set_ud(struct refault_sq_wqe *wqe, const struct refault_ah *ah,
		uint32_t qpn, uint32_t qkey)
{
	wqe->dest_qpn = htole32(qpn);
	wqe->qkey = htole32(qkey);
	wqe->dest_lid = htole16(ah->dlid);
	wqe->sl = ah->sl;
	wqe->has_grh = ah->has_grh;
	memcpy(&wqe->remote_addr, ah->next_hop, sizeof(wqe->remote_addr));
	wqe->rkey = htole32(ah->flow_class);
	wqe->source_port = htole16(ah->source_port);
	/* Datagrams have no operands: the fields hold halves of the raw GID. */
	memcpy(&wqe->compare_add, ah->dgid, sizeof(wqe->compare_add));
	memcpy(&wqe->swap, ah->dgid + sizeof(wqe->compare_add),
	       sizeof(wqe->swap));
}

/* Returns 0 or an errno. */
int wqe_fill_recv(struct refault_rq_wqe *wqe, const struct ibv_recv_wr *wr)
{
	if (wr->num_sge < 0 || wr->num_sge > (int)REFAULT_MAX_SGE)
		return EINVAL;
	wqe->wr_id = htole64(wr->wr_id);
	wqe->num_sge = htole32(wr->num_sge);
	wqe_set_sges(wqe->sge, wr->sg_list, wr->num_sge);
	return 0;
}
