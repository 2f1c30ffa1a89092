// SPDX-License-Identifier: GPL-2.0
/*
 * Completion queues. The ring is in the process' memory and the provider polls
 * it; the kernel only handles the events of CQs that were armed. CQs of the
 * kernel have rings of ours: see rings.c and poll.c.
 */

#include <linux/interrupt.h>

#include "refault.h"

static int refault_check_cq(const struct ib_cq_init_attr *attr,
			    const struct refault_uverbs_create_cq *req)
{
	u64 length = le64_to_cpu(req->length);
	u32 record = le32_to_cpu(req->record_offset);
	u32 log_size = le32_to_cpu(req->log_size);

	/* Timestamps are always on. IGNORE_OVERRUN is not supported. */
	if (attr->flags & ~IB_UVERBS_CQ_FLAGS_TIMESTAMP_COMPLETION)
		return -EOPNOTSUPP;
	if (log_size > REFAULT_MAX_LOG_CQES || attr->cqe > BIT(log_size))
		return -EINVAL;
	if (record < (u64)REFAULT_CQE_SIZE << log_size ||
	    !IS_ALIGNED(record, sizeof(struct refault_cq_doorbell_record)))
		return -EINVAL;
	/* Bound the length, since all of it is pinned. */
	if (length < (u64)record + sizeof(struct refault_cq_doorbell_record) ||
	    length > PAGE_ALIGN((u64)record + PAGE_SIZE))
		return -EINVAL;
	return 0;
}

static int refault_cmd_create_cq(struct refault_dev *dev, struct refault_cq *cq,
				 __le32 record_offset, u32 log_size,
				 u32 context)
{
	struct refault_create_cq cmd = {
		.buffer = cq->pbl.table,
		.record_offset = record_offset,
		.context = cpu_to_le32(context),
		.eqn = cpu_to_le32(cq->eq->eqn),
		.log_size = log_size,
	};

	return refault_cmd_create(dev, REFAULT_CMD_CREATE_CQ, &cmd, sizeof(cmd),
				  &cq->cqn);
}

/* Destroys the CQ on the NIC. On return no handler is using it. */
static int refault_cmd_destroy_cq(struct refault_dev *dev, struct refault_cq *cq)
{
	int ret = refault_cmd_destroy(dev, REFAULT_CMD_DESTROY_CQ, cq->cqn);

	if (ret)
		return ret;
	xa_erase(&dev->cqs, cq->cqn);
	synchronize_irq(cq->eq->irq);
	return 0;
}

/* Creates the CQ on the NIC, and has its events handled. */
static int refault_cq_start(struct refault_dev *dev, struct refault_cq *cq,
			    __le32 record_offset, u32 log_size, u32 context)
{
	int ret;

	ret = refault_cmd_create_cq(dev, cq, record_offset, log_size, context);
	if (ret)
		return ret;
	ret = xa_err(xa_store(&dev->cqs, cq->cqn, cq, GFP_KERNEL));
	if (ret && refault_cmd_destroy_cq(dev, cq))
		refault_die(dev, "a completion queue could not be destroyed");
	return ret;
}

/**
 * refault_cq_make() - Make a CQ of the kernel.
 * @dev: the NIC
 * @cq: the CQ, zeroed but for its ibcq
 * @log_size: log2 of its entries
 * @comp_vector: completion vector of its events
 *
 * Return: 0 or an errno.
 */
int refault_cq_make(struct refault_dev *dev, struct refault_cq *cq,
		    u32 log_size, u32 comp_vector)
{
	u32 record = REFAULT_CQE_SIZE << log_size;
	int ret;

	if (!refault_has_kernel(dev))
		return -EOPNOTSUPP;
	if (log_size > REFAULT_MAX_LOG_CQES)
		return -EINVAL;
	ret = refault_cq_ring_alloc(dev, cq, log_size);
	if (ret)
		return ret;
	cq->eq = refault_comp_eq(dev, comp_vector);
	ret = refault_cq_start(dev, cq, cpu_to_le32(record), log_size,
			       dev->kernel_context);
	if (ret)
		refault_cq_ring_free(dev, cq);
	return ret;
}

static int refault_create_kernel_cq(struct ib_cq *ibcq,
				    const struct ib_cq_init_attr *attr)
{
	u32 log_size = order_base_2(attr->cqe);

	if (attr->flags)
		return -EOPNOTSUPP;
	ibcq->cqe = BIT(log_size);
	return refault_cq_make(to_rdev(ibcq->device), to_rcq(ibcq), log_size,
			       attr->comp_vector);
}

static int refault_create_user_cq(struct ib_cq *ibcq,
				  const struct ib_cq_init_attr *attr,
				  struct ib_udata *udata)
{
	struct refault_ucontext *uctx = refault_udata_context(udata);
	struct refault_dev *dev = to_rdev(ibcq->device);
	struct refault_cq *cq = to_rcq(ibcq);
	struct refault_uverbs_create_cq req;
	struct refault_uverbs_cq resp = {};
	int ret;

	ret = ib_copy_validate_udata_in(udata, req, reserved);
	if (ret)
		return ret;
	/* Zero, so that it can have a meaning one day. */
	if (req.reserved)
		return -EOPNOTSUPP;
	ret = refault_check_cq(attr, &req);
	if (ret)
		return ret;

	ret = refault_pin_ring(dev, le64_to_cpu(req.buffer),
			       le64_to_cpu(req.length), &cq->umem, &cq->pbl);
	if (ret)
		return ret;
	cq->eq = refault_comp_eq(dev, attr->comp_vector);
	ret = refault_cq_start(dev, cq, req.record_offset,
			       le32_to_cpu(req.log_size), uctx->bond->id);
	if (ret)
		goto err_unpin;

	ibcq->cqe = BIT(le32_to_cpu(req.log_size));
	resp.cqn = cpu_to_le32(cq->cqn);
	ret = ib_respond_udata(udata, resp);
	if (ret)
		goto err_destroy;
	return 0;

err_destroy:
	if (refault_cmd_destroy_cq(dev, cq))
		refault_die(dev, "a completion queue could not be destroyed");
err_unpin:
	refault_unpin_ring(dev, cq->umem, &cq->pbl);
	return ret;
}

/* The core has one operation for processes and kernel: @attrs is NULL then. */
int refault_create_cq(struct ib_cq *ibcq, const struct ib_cq_init_attr *attr,
		      struct uverbs_attr_bundle *attrs)
{
	return attrs ? refault_create_user_cq(ibcq, attr, &attrs->driver_udata) :
		       refault_create_kernel_cq(ibcq, attr);
}

int refault_destroy_cq(struct ib_cq *ibcq, struct ib_udata *udata)
{
	struct refault_dev *dev = to_rdev(ibcq->device);
	struct refault_cq *cq = to_rcq(ibcq);
	int ret;

	ret = refault_cmd_destroy_cq(dev, cq);
	if (ret)
		return ret;
	refault_unpin_ring(dev, cq->umem, &cq->pbl);
	refault_cq_ring_free(dev, cq);
	return 0;
}

int refault_modify_cq(struct ib_cq *ibcq, u16 count, u16 period_us)
{
	struct refault_modify_cq cmd = {
		.cqn = cpu_to_le32(to_rcq(ibcq)->cqn),
		.count = cpu_to_le16(count),
		.period_us = cpu_to_le16(period_us),
	};

	return refault_cmd(to_rdev(ibcq->device), REFAULT_CMD_MODIFY_CQ, &cmd,
			   sizeof(cmd), NULL, 0);
}

/* Called by the event queue's handler. */
void refault_cq_complete(struct refault_dev *dev, u32 cqn)
{
	struct refault_cq *cq = xa_load(&dev->cqs, cqn);

	if (cq && cq->ibcq.comp_handler)
		cq->ibcq.comp_handler(&cq->ibcq, cq->ibcq.cq_context);
}

/* Called by the event queue's handler. */
void refault_cq_error(struct refault_dev *dev, u32 cqn)
{
	struct refault_cq *cq = xa_load(&dev->cqs, cqn);
	struct ib_event event = {
		.device = &dev->ibdev,
		.event = IB_EVENT_CQ_ERR,
	};

	if (!cq || !cq->ibcq.event_handler)
		return;
	event.element.cq = &cq->ibcq;
	cq->ibcq.event_handler(&event, cq->ibcq.cq_context);
}
