// SPDX-License-Identifier: GPL-2.0
/*
 * Queue pairs: creation, destruction and asynchronous events. The rings are in
 * the process' memory; the provider posts and rings without a system call. QPs
 * of the kernel have rings of ours: see rings.c and post.c.
 *
 * Who polls for the kernel looks QPs up by number, holding the lock of a CQ. That
 * is safe, since a QP is taken from its CQs, with their locks, before it is freed.
 */

#include <linux/interrupt.h>

#include "refault.h"

static int refault_check_qp_attr(const struct ib_qp_init_attr *attr)
{
	const struct ib_qp_cap *cap = &attr->cap;

	if (attr->create_flags)
		return -EOPNOTSUPP;
	if (cap->max_send_sge > REFAULT_MAX_SGE ||
	    cap->max_inline_data > REFAULT_MAX_INLINE)
		return -EINVAL;
	/* With an SRQ the receive capabilities are ignored. */
	if (!attr->srq && cap->max_recv_sge > REFAULT_MAX_SGE)
		return -EINVAL;
	return 0;
}

static int refault_check_qp_rings(const struct ib_qp_init_attr *attr,
				  const struct refault_uverbs_create_qp *req)
{
	const struct ib_qp_cap *cap = &attr->cap;
	u64 length = le64_to_cpu(req->length);
	u32 rq = le32_to_cpu(req->rq_offset);
	u32 record = le32_to_cpu(req->record_offset);
	u32 log_sq = le32_to_cpu(req->log_sq);
	u32 log_rq = le32_to_cpu(req->log_rq);

	if (log_sq > REFAULT_MAX_LOG_WQES || log_rq > REFAULT_MAX_LOG_WQES ||
	    cap->max_send_wr > BIT(log_sq))
		return -EINVAL;
	if (!attr->srq && cap->max_recv_wr > BIT(log_rq))
		return -EINVAL;
	if (rq < (u64)REFAULT_SQ_WQE_SIZE << log_sq ||
	    !IS_ALIGNED(rq, REFAULT_RQ_WQE_SIZE))
		return -EINVAL;
	if (record < (u64)rq + ((u64)REFAULT_RQ_WQE_SIZE << log_rq) ||
	    !IS_ALIGNED(record, sizeof(struct refault_qp_doorbell_record)))
		return -EINVAL;
	/* Bound the length, since all of it is pinned: rings and record. */
	if (length < (u64)record + sizeof(struct refault_qp_doorbell_record) ||
	    length > SZ_8M)
		return -EINVAL;
	return 0;
}

static u8 refault_qp_kind(enum ib_qp_type type)
{
	switch (type) {
	case IB_QPT_GSI:
		return REFAULT_QPT_GSI;
	case IB_QPT_UD:
		return REFAULT_QPT_UD;
	case IB_QPT_RAW_PACKET:
		return REFAULT_QPT_ETHERNET;
	default:
		return REFAULT_QPT_RC;
	}
}

static int refault_cmd_create_qp(struct refault_dev *dev,
				 struct refault_qp *qp,
				 const struct ib_qp_init_attr *attr,
				 const struct refault_uverbs_create_qp *req)
{
	struct refault_create_qp cmd = {
		.buffer = qp->pbl.table,
		.rq_offset = req->rq_offset,
		.record_offset = req->record_offset,
		.pd = cpu_to_le32(to_rpd(qp->ibqp.pd)->id),
		.send_cq = cpu_to_le32(to_rcq(attr->send_cq)->cqn),
		.recv_cq = cpu_to_le32(to_rcq(attr->recv_cq)->cqn),
		.eqn = cpu_to_le32(refault_async_eq(dev)->eqn),
		.log_sq = le32_to_cpu(req->log_sq),
		.log_rq = le32_to_cpu(req->log_rq),
		.signal_all = qp->signal_all,
		.kind = refault_qp_kind(attr->qp_type),
		.srqn = cpu_to_le32(attr->srq ? to_rsrq(attr->srq)->srqn : 0),
	};

	return refault_cmd_create(dev, REFAULT_CMD_CREATE_QP, &cmd, sizeof(cmd),
				  &qp->qpn);
}

/* Destroys the QP on the NIC. On return no handler is using it. */
static int refault_cmd_destroy_qp(struct refault_dev *dev, struct refault_qp *qp)
{
	int ret;

	ret = refault_cmd_destroy(dev, REFAULT_CMD_DESTROY_QP, qp->qpn);
	if (ret)
		return ret;
	xa_erase(&dev->qps, qp->qpn);
	synchronize_irq(refault_async_eq(dev)->irq);
	return 0;
}

/* Returns the actual capabilities: at least those that were requested. */
static void refault_set_cap(struct refault_qp *qp, struct ib_qp_init_attr *attr,
			    const struct refault_uverbs_create_qp *req)
{
	struct ib_qp_cap *cap = &attr->cap;

	cap->max_send_wr = BIT(le32_to_cpu(req->log_sq));
	cap->max_recv_wr = attr->srq ? 0 : BIT(le32_to_cpu(req->log_rq));
	cap->max_send_sge = REFAULT_MAX_SGE;
	cap->max_recv_sge = attr->srq ? 0 : REFAULT_MAX_SGE;
	cap->max_inline_data = REFAULT_MAX_INLINE;
	qp->cap = *cap;
}

/* Creates the QP on the NIC, and has its events handled. */
static int refault_qp_start(struct refault_dev *dev, struct refault_qp *qp,
			    const struct ib_qp_init_attr *attr,
			    const struct refault_uverbs_create_qp *layout)
{
	int ret;

	mutex_init(&qp->lock);
	qp->signal_all = attr->sq_sig_type == IB_SIGNAL_ALL_WR;
	ret = refault_cmd_create_qp(dev, qp, attr, layout);
	if (ret)
		return ret;
	ret = xa_err(xa_store(&dev->qps, qp->qpn, qp, GFP_KERNEL));
	if (ret && refault_cmd_destroy_qp(dev, qp))
		refault_die(dev, "a queue pair could not be destroyed");
	return ret;
}

/**
 * refault_qp_make() - Make a QP of the kernel.
 * @dev: the NIC
 * @qp: the QP, zeroed but for the PD in its ibqp
 * @attr: what it is to be; IB_QPT_RAW_PACKET is the QP for Ethernet frames
 *
 * Return: 0 or an errno.
 */
int refault_qp_make(struct refault_dev *dev, struct refault_qp *qp,
		    struct ib_qp_init_attr *attr)
{
	u32 log_sq = order_base_2(max(attr->cap.max_send_wr, 1U));
	u32 log_rq = order_base_2(max(attr->cap.max_recv_wr, 1U));
	struct refault_uverbs_create_qp layout = {
		.log_sq = cpu_to_le32(log_sq),
		.log_rq = cpu_to_le32(log_rq),
	};
	int ret;

	if (!refault_has_kernel(dev) || attr->srq)
		return -EOPNOTSUPP;
	if (log_sq > REFAULT_MAX_LOG_WQES || log_rq > REFAULT_MAX_LOG_WQES)
		return -EINVAL;
	ret = refault_qp_rings_alloc(dev, qp, &layout);
	if (ret)
		return ret;
	ret = refault_qp_start(dev, qp, attr, &layout);
	if (ret) {
		refault_qp_rings_free(dev, qp);
		return ret;
	}
	refault_qp_rings_link(qp, to_rcq(attr->send_cq), to_rcq(attr->recv_cq));
	refault_set_cap(qp, attr, &layout);
	return 0;
}

static int refault_create_kernel_qp(struct ib_qp *ibqp,
				    struct ib_qp_init_attr *attr)
{
	struct refault_qp *qp = to_rqp(ibqp);
	int ret;

	if (attr->qp_type != IB_QPT_RC && attr->qp_type != IB_QPT_UD &&
	    attr->qp_type != IB_QPT_GSI)
		return -EOPNOTSUPP;
	ret = refault_check_qp_attr(attr);
	if (ret)
		return ret;
	ret = refault_qp_make(to_rdev(ibqp->device), qp, attr);
	ibqp->qp_num = attr->qp_type == IB_QPT_GSI ? 1 : qp->qpn;
	return ret;
}

static int refault_create_user_qp(struct ib_qp *ibqp,
				  struct ib_qp_init_attr *attr,
				  struct ib_udata *udata)
{
	struct refault_dev *dev = to_rdev(ibqp->device);
	struct refault_qp *qp = to_rqp(ibqp);
	struct refault_uverbs_create_qp req;
	struct refault_uverbs_qp resp = {};
	int ret;

	if (attr->qp_type != IB_QPT_RC && attr->qp_type != IB_QPT_UD)
		return -EOPNOTSUPP;
	ret = refault_check_qp_attr(attr);
	if (ret)
		return ret;
	ret = ib_copy_validate_udata_in(udata, req, reserved);
	if (ret)
		return ret;
	/* Zero, so that it can have a meaning one day. */
	if (req.reserved)
		return -EOPNOTSUPP;
	ret = refault_check_qp_rings(attr, &req);
	if (ret)
		return ret;

	ret = refault_pin_ring(dev, le64_to_cpu(req.buffer),
			       le64_to_cpu(req.length), &qp->umem, &qp->pbl);
	if (ret)
		return ret;
	ret = refault_qp_start(dev, qp, attr, &req);
	if (ret)
		goto err_unpin;

	ibqp->qp_num = qp->qpn;
	refault_set_cap(qp, attr, &req);
	resp.qpn = cpu_to_le32(qp->qpn);
	ret = ib_respond_udata(udata, resp);
	if (ret)
		goto err_destroy;
	return 0;

err_destroy:
	if (refault_cmd_destroy_qp(dev, qp))
		refault_die(dev, "a queue pair could not be destroyed");
err_unpin:
	refault_unpin_ring(dev, qp->umem, &qp->pbl);
	return ret;
}

int refault_create_qp(struct ib_qp *ibqp, struct ib_qp_init_attr *attr,
		      struct ib_udata *udata)
{
	return udata ? refault_create_user_qp(ibqp, attr, udata) :
		       refault_create_kernel_qp(ibqp, attr);
}

int refault_destroy_qp(struct ib_qp *ibqp, struct ib_udata *udata)
{
	struct refault_dev *dev = to_rdev(ibqp->device);
	struct refault_qp *qp = to_rqp(ibqp);
	int ret;

	ret = refault_cmd_destroy_qp(dev, qp);
	if (ret)
		return ret;
	if (refault_is_kernel_qp(qp))
		refault_qp_rings_unlink(qp, to_rcq(ibqp->send_cq),
					to_rcq(ibqp->recv_cq));
	refault_qp_rings_free(dev, qp);
	refault_unpin_ring(dev, qp->umem, &qp->pbl);
	return 0;
}

static bool refault_qp_event_type(const struct refault_qp *qp, u8 code,
				  enum ib_event_type *type)
{
	switch (code) {
	case REFAULT_QP_EVENT_FATAL:
		*type = IB_EVENT_QP_FATAL;
		return true;
	case REFAULT_QP_EVENT_REQUEST_ERROR:
		*type = IB_EVENT_QP_REQ_ERR;
		return true;
	case REFAULT_QP_EVENT_ACCESS_ERROR:
		*type = IB_EVENT_QP_ACCESS_ERR;
		return true;
	case REFAULT_QP_EVENT_COMMUNICATION_ESTABLISHED:
		*type = IB_EVENT_COMM_EST;
		return true;
	case REFAULT_QP_EVENT_SQ_DRAINED:
		*type = IB_EVENT_SQ_DRAINED;
		return READ_ONCE(qp->sqd_notify);
	case REFAULT_QP_EVENT_LAST_WQE_REACHED:
		*type = IB_EVENT_QP_LAST_WQE_REACHED;
		return true;
	default:
		return false;
	}
}

/* Called by the event queue's handler. */
void refault_qp_event(struct refault_dev *dev, u32 qpn, u8 code)
{
	struct refault_qp *qp = xa_load(&dev->qps, qpn);
	struct ib_event event = { .device = &dev->ibdev };

	if (!qp || !refault_qp_event_type(qp, code, &event.event))
		return;
	event.element.qp = &qp->ibqp;
	qp->ibqp.event_handler(&event, qp->ibqp.qp_context);
}
