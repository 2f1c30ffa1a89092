// SPDX-License-Identifier: GPL-2.0
/*
 * Rings of the kernel's queues: completion queues and queue pairs that kernel
 * ULPs and the netdev use. They are as those of a process, in coherent memory.
 *
 * Each completion queue knows the queue pairs that complete to it, because it
 * has to return their requests if the NIC dies.
 */

#include <linux/dma-mapping.h>

#include "refault.h"

static int refault_memory_alloc(struct refault_dev *dev,
				struct refault_memory *memory, size_t size,
				struct refault_page_table *table)
{
	memory->size = PAGE_ALIGN(size);
	memory->address = dma_alloc_coherent(&dev->pdev->dev, memory->size,
					     &memory->dma, GFP_KERNEL);
	if (!memory->address)
		return -ENOMEM;
	*table = (struct refault_page_table){
		.root = cpu_to_le64(memory->dma),
		.pages = cpu_to_le32(memory->size / SZ_4K),
		.page_shift = ilog2(SZ_4K),
	};
	return 0;
}

static void refault_memory_free(struct refault_dev *dev,
				struct refault_memory *memory)
{
	if (memory->address)
		dma_free_coherent(&dev->pdev->dev, memory->size,
				  memory->address, memory->dma);
	memory->address = NULL;
}

/* Allocates the ring of 2^@log_size entries, and the record behind it. */
int refault_cq_ring_alloc(struct refault_dev *dev, struct refault_cq *cq,
			  u32 log_size)
{
	struct refault_cq_ring *ring = &cq->ring;
	size_t bytes = (size_t)REFAULT_CQE_SIZE << log_size;
	int ret;

	ret = refault_memory_alloc(dev, &ring->memory,
				   bytes + sizeof(*ring->record),
				   &cq->pbl.table);
	if (ret)
		return ret;
	ring->entries = ring->memory.address;
	ring->record = ring->memory.address + bytes;
	ring->log_size = log_size;
	spin_lock_init(&ring->lock);
	INIT_LIST_HEAD(&ring->senders);
	INIT_LIST_HEAD(&ring->receivers);
	return 0;
}

void refault_cq_ring_free(struct refault_dev *dev, struct refault_cq *cq)
{
	refault_memory_free(dev, &cq->ring.memory);
}

static void refault_queue_init(struct refault_queue *queue, void *ring, u32 log)
{
	spin_lock_init(&queue->lock);
	queue->ring = ring;
	queue->size = BIT(log);
}

/*
 * Allocates send ring, receive ring and record, and returns in @layout where
 * they are. The logs of both sizes are given there.
 */
int refault_qp_rings_alloc(struct refault_dev *dev, struct refault_qp *qp,
			   struct refault_uverbs_create_qp *layout)
{
	u32 log_sq = le32_to_cpu(layout->log_sq);
	u32 log_rq = le32_to_cpu(layout->log_rq);
	u32 rq = REFAULT_SQ_WQE_SIZE << log_sq;
	u32 record = rq + (REFAULT_RQ_WQE_SIZE << log_rq);
	struct refault_qp_rings *rings = &qp->rings;
	int ret;

	ret = refault_memory_alloc(dev, &rings->memory,
				   record + sizeof(*rings->record),
				   &qp->pbl.table);
	if (ret)
		return ret;
	layout->rq_offset = cpu_to_le32(rq);
	layout->record_offset = cpu_to_le32(record);
	refault_queue_init(&rings->sq, rings->memory.address, log_sq);
	refault_queue_init(&rings->rq, rings->memory.address + rq, log_rq);
	rings->record = rings->memory.address + record;
	INIT_LIST_HEAD(&rings->sender);
	INIT_LIST_HEAD(&rings->receiver);
	return 0;
}

/* The queue pair can post from now on, and its CQs must return its requests. */
void refault_qp_rings_link(struct refault_qp *qp, struct refault_cq *send_cq,
			   struct refault_cq *recv_cq)
{
	spin_lock_irq(&send_cq->ring.lock);
	list_add_tail(&qp->rings.sender, &send_cq->ring.senders);
	spin_unlock_irq(&send_cq->ring.lock);
	spin_lock_irq(&recv_cq->ring.lock);
	list_add_tail(&qp->rings.receiver, &recv_cq->ring.receivers);
	spin_unlock_irq(&recv_cq->ring.lock);
}

/* Takes the queue pair, which the NIC does not know any more, from its CQs. */
void refault_qp_rings_unlink(struct refault_qp *qp, struct refault_cq *send_cq,
			     struct refault_cq *recv_cq)
{
	spin_lock_irq(&send_cq->ring.lock);
	list_del_init(&qp->rings.sender);
	refault_cq_forget(send_cq, qp->qpn);
	spin_unlock_irq(&send_cq->ring.lock);
	spin_lock_irq(&recv_cq->ring.lock);
	list_del_init(&qp->rings.receiver);
	refault_cq_forget(recv_cq, qp->qpn);
	spin_unlock_irq(&recv_cq->ring.lock);
}

void refault_qp_rings_free(struct refault_dev *dev, struct refault_qp *qp)
{
	refault_memory_free(dev, &qp->rings.memory);
}

/* Follows a move to RESET: drops requests and completions. */
void refault_qp_rings_reset(struct refault_qp *qp)
{
	struct refault_cq *send_cq = to_rcq(qp->ibqp.send_cq);
	struct refault_cq *recv_cq = to_rcq(qp->ibqp.recv_cq);
	struct refault_qp_rings *rings = &qp->rings;

	spin_lock_irq(&send_cq->ring.lock);
	refault_cq_forget(send_cq, qp->qpn);
	rings->sq.head = 0;
	rings->sq.tail = 0;
	rings->record->sq_producer = 0;
	spin_unlock_irq(&send_cq->ring.lock);
	spin_lock_irq(&recv_cq->ring.lock);
	refault_cq_forget(recv_cq, qp->qpn);
	rings->rq.head = 0;
	rings->rq.tail = 0;
	rings->record->rq_producer = 0;
	rings->record->in_error = 0;
	spin_unlock_irq(&recv_cq->ring.lock);
}
