// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's own share of the NIC: a context without a PASID, which all
 * protection domains of the kernel belong to, and its doorbell page. Only NICs
 * with an Ethernet port have it.
 *
 * Memory is named by DMA addresses there: a region that covers all of them is a
 * pinned one whose single run of pages begins at zero.
 */

#include <linux/io.h>
#include <linux/io-64-nonatomic-lo-hi.h>

#include "refault.h"

#define REFAULT_DMA_PAGES U32_MAX
#define REFAULT_DMA_BYTES ((u64)REFAULT_DMA_PAGES << ilog2(SZ_2M))

/**
 * refault_kernel_ring() - Write a doorbell of the kernel. Never sleeps.
 * @dev: the NIC
 * @kind: REFAULT_DOORBELL_*
 * @number: of the object
 * @argument: of the kind
 *
 * Stores to memory before it are visible to the NIC when it sees the doorbell.
 * If the NIC is dead, those who poll find out what becomes of the requests.
 */
void refault_kernel_ring(struct refault_dev *dev, u64 kind, u32 number,
			 u32 argument)
{
	u64 value = kind << REFAULT_DOORBELL_KIND_SHIFT |
		    (u64)number << REFAULT_DOORBELL_NUMBER_SHIFT | argument;

	/* Either we see the NIC dead, or refault_poll_dead() what was posted. */
	smp_mb();
	if (refault_is_dead(dev))
		schedule_work(&dev->dead_work);
	else
		writeq(value, dev->kernel_doorbell);
}

/* Creates a protection domain of the kernel. */
int refault_kernel_pd(struct refault_dev *dev, u32 *id)
{
	struct refault_object_id context = {
		.id = cpu_to_le32(dev->kernel_context),
	};

	if (!refault_has_kernel(dev))
		return -EOPNOTSUPP;
	return refault_cmd_create(dev, REFAULT_CMD_CREATE_PD, &context,
				  sizeof(context), id);
}

/* Makes @mr, which is zeroed but for its access, cover all DMA addresses. */
void refault_cover_dma(struct refault_mr *mr)
{
	mr->mode = REFAULT_MR_PINNED;
	mr->length = REFAULT_DMA_BYTES;
	mr->pbl.table.pages = cpu_to_le32(REFAULT_DMA_PAGES);
	mr->pbl.table.page_shift = ilog2(SZ_2M);
}

/*
 * Calls the handlers of the kernel's CQs after the NIC died: polling them gives
 * the requests back that the NIC cannot complete any more.
 */
static void refault_dead_work(struct work_struct *work)
{
	struct refault_dev *dev = container_of(work, struct refault_dev,
					       dead_work);
	struct refault_cq *cq;
	unsigned long cqn;

	xa_lock_bh(&dev->cqs);
	xa_for_each(&dev->cqs, cqn, cq)
		if (refault_is_kernel_cq(cq) && cq->ibcq.comp_handler)
			cq->ibcq.comp_handler(&cq->ibcq, cq->ibcq.cq_context);
	xa_unlock_bh(&dev->cqs);
}

static int refault_map_doorbell(struct refault_dev *dev)
{
	u32 id = dev->kernel_context;

	if (id >= dev->doorbell_pages)
		return -EIO;
	dev->kernel_doorbell = ioremap(dev->doorbells +
				       (phys_addr_t)id * REFAULT_DOORBELL_PAGE_SIZE,
				       REFAULT_DOORBELL_PAGE_SIZE);
	return dev->kernel_doorbell ? 0 : -ENOMEM;
}

static void refault_kernel_leave(struct refault_dev *dev)
{
	if (refault_cmd_destroy(dev, REFAULT_CMD_DESTROY_CONTEXT,
				dev->kernel_context))
		refault_die(dev, "the kernel's context could not be destroyed");
}

/* Does nothing if the port is not Ethernet. */
int refault_kernel_init(struct refault_dev *dev)
{
	struct refault_create_context cmd = {};
	int ret;

	if (!refault_has_ethernet(dev))
		return 0;
	ret = refault_cmd_create(dev, REFAULT_CMD_CREATE_CONTEXT, &cmd,
				 sizeof(cmd), &dev->kernel_context);
	if (ret)
		return ret;
	ret = refault_map_doorbell(dev);
	if (ret)
		refault_kernel_leave(dev);
	return ret;
}

/* All objects of the context must be gone. */
void refault_kernel_free(struct refault_dev *dev)
{
	if (!refault_has_kernel(dev))
		return;
	refault_kernel_leave(dev);
	iounmap(dev->kernel_doorbell);
	dev->kernel_doorbell = NULL;
}

void refault_kernel_alloc(struct refault_dev *dev)
{
	INIT_WORK(&dev->dead_work, refault_dead_work);
}
