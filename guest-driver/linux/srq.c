// SPDX-License-Identifier: GPL-2.0
/*
 * Shared receive queues. The ring is in the process' memory, and the provider
 * posts to it without a system call. The NIC keeps the limit, and writes its
 * consumer index to the doorbell record.
 */

#include <linux/interrupt.h>

#include "refault.h"

static int refault_check_srq(const struct ib_srq_init_attr *attr,
			     const struct refault_uverbs_create_srq *req)
{
	u64 length = le64_to_cpu(req->length);
	u32 record = le32_to_cpu(req->record_offset);
	u32 log_size = le32_to_cpu(req->log_size);

	if (attr->srq_type != IB_SRQT_BASIC)
		return -EOPNOTSUPP;
	if (!attr->attr.max_wr || log_size > REFAULT_MAX_LOG_WQES ||
	    attr->attr.max_wr > BIT(log_size) ||
	    attr->attr.max_sge > REFAULT_MAX_SGE)
		return -EINVAL;
	if (record < (u64)REFAULT_RQ_WQE_SIZE << log_size ||
	    !IS_ALIGNED(record, sizeof(struct refault_srq_doorbell_record)))
		return -EINVAL;
	/* Bound the length, since all of it is pinned. */
	if (length < (u64)record + sizeof(struct refault_srq_doorbell_record) ||
	    length > PAGE_ALIGN((u64)record + PAGE_SIZE))
		return -EINVAL;
	return 0;
}

static int refault_cmd_create_srq(struct refault_dev *dev,
				  struct refault_srq *srq,
				  const struct refault_uverbs_create_srq *req)
{
	struct refault_create_srq cmd = {
		.buffer = srq->pbl.table,
		.record_offset = req->record_offset,
		.pd = cpu_to_le32(to_rpd(srq->ibsrq.pd)->id),
		.eqn = cpu_to_le32(refault_async_eq(dev)->eqn),
		.log_size = le32_to_cpu(req->log_size),
	};

	return refault_cmd_create(dev, REFAULT_CMD_CREATE_SRQ, &cmd,
				  sizeof(cmd), &srq->srqn);
}

/* Destroys the SRQ on the NIC. On return no handler is using it. */
static int refault_cmd_destroy_srq(struct refault_dev *dev,
				   struct refault_srq *srq)
{
	int ret = refault_cmd_destroy(dev, REFAULT_CMD_DESTROY_SRQ, srq->srqn);

	if (ret)
		return ret;
	xa_erase(&dev->srqs, srq->srqn);
	synchronize_irq(refault_async_eq(dev)->irq);
	return 0;
}

static int refault_arm_srq(struct refault_dev *dev, struct refault_srq *srq,
			   u32 limit)
{
	struct refault_arm_srq cmd = {
		.srqn = cpu_to_le32(srq->srqn),
		.limit = cpu_to_le32(limit),
	};

	return refault_cmd(dev, REFAULT_CMD_ARM_SRQ, &cmd, sizeof(cmd), NULL, 0);
}

int refault_create_srq(struct ib_srq *ibsrq, struct ib_srq_init_attr *attr,
		       struct ib_udata *udata)
{
	struct refault_dev *dev = to_rdev(ibsrq->device);
	struct refault_srq *srq = to_rsrq(ibsrq);
	struct refault_uverbs_create_srq req;
	struct refault_uverbs_srq resp = {};
	int ret;

	if (!udata)
		return -EOPNOTSUPP;
	ret = ib_copy_validate_udata_in(udata, req, reserved);
	if (ret)
		return ret;
	/* Zero, so that it can have a meaning one day. */
	if (req.reserved)
		return -EOPNOTSUPP;
	ret = refault_check_srq(attr, &req);
	if (ret)
		return ret;

	ret = refault_pin_ring(dev, le64_to_cpu(req.buffer),
			       le64_to_cpu(req.length), &srq->umem, &srq->pbl);
	if (ret)
		return ret;
	ret = refault_cmd_create_srq(dev, srq, &req);
	if (ret)
		goto err_unpin;
	ret = xa_err(xa_store(&dev->srqs, srq->srqn, srq, GFP_KERNEL));
	if (ret)
		goto err_destroy;

	srq->max_wr = BIT(le32_to_cpu(req.log_size));
	attr->attr.max_wr = srq->max_wr;
	attr->attr.max_sge = REFAULT_MAX_SGE;
	resp.srqn = cpu_to_le32(srq->srqn);
	ret = ib_respond_udata(udata, resp);
	if (ret)
		goto err_destroy;
	return 0;

err_destroy:
	if (refault_cmd_destroy_srq(dev, srq))
		refault_die(dev, "a shared receive queue could not be destroyed");
err_unpin:
	refault_unpin_ring(dev, srq->umem, &srq->pbl);
	return ret;
}

/* Only the limit can be changed: resizing is not supported. */
int refault_modify_srq(struct ib_srq *ibsrq, struct ib_srq_attr *attr,
		       enum ib_srq_attr_mask mask, struct ib_udata *udata)
{
	struct refault_srq *srq = to_rsrq(ibsrq);
	int ret;

	ret = ib_no_udata_io(udata);
	if (ret)
		return ret;
	if (mask & ~IB_SRQ_LIMIT)
		return -EOPNOTSUPP;
	if (!(mask & IB_SRQ_LIMIT))
		return 0;
	if (attr->srq_limit > srq->max_wr)
		return -EINVAL;
	return refault_arm_srq(to_rdev(ibsrq->device), srq, attr->srq_limit);
}

int refault_query_srq(struct ib_srq *ibsrq, struct ib_srq_attr *attr)
{
	struct refault_srq *srq = to_rsrq(ibsrq);
	struct refault_object_id object = { .id = cpu_to_le32(srq->srqn) };
	struct refault_srq_state state;
	int ret;

	ret = refault_cmd(to_rdev(ibsrq->device), REFAULT_CMD_QUERY_SRQ,
			  &object, sizeof(object), &state, sizeof(state));
	if (ret)
		return ret;
	attr->max_wr = srq->max_wr;
	attr->max_sge = REFAULT_MAX_SGE;
	attr->srq_limit = le32_to_cpu(state.limit);
	return 0;
}

int refault_destroy_srq(struct ib_srq *ibsrq, struct ib_udata *udata)
{
	struct refault_dev *dev = to_rdev(ibsrq->device);
	struct refault_srq *srq = to_rsrq(ibsrq);
	int ret;

	ret = refault_cmd_destroy_srq(dev, srq);
	if (ret)
		return ret;
	refault_unpin_ring(dev, srq->umem, &srq->pbl);
	return 0;
}

/* Called by the event queue's handler. */
void refault_srq_event(struct refault_dev *dev, u32 srqn, u8 code)
{
	struct refault_srq *srq = xa_load(&dev->srqs, srqn);
	struct ib_event event = { .device = &dev->ibdev };

	if (!srq)
		return;
	switch (code) {
	case REFAULT_SRQ_EVENT_LIMIT_REACHED:
		event.event = IB_EVENT_SRQ_LIMIT_REACHED;
		break;
	case REFAULT_SRQ_EVENT_ERROR:
		event.event = IB_EVENT_SRQ_ERR;
		break;
	default:
		return;
	}
	event.element.srq = &srq->ibsrq;
	srq->ibsrq.event_handler(&event, srq->ibsrq.srq_context);
}
