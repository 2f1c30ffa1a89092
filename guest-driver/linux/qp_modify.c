// SPDX-License-Identifier: GPL-2.0
/*
 * Queue pairs: state and attributes. The NIC keeps both and is queried each
 * time, since it may move a queue pair to the error state on its own.
 */

#include <rdma/ib_cache.h>

#include "refault.h"

static const struct {
	int ib;
	u32 nic;
} refault_attr_masks[] = {
	{ IB_QP_STATE, REFAULT_QP_ATTR_STATE },
	{ IB_QP_ACCESS_FLAGS, REFAULT_QP_ATTR_ACCESS },
	{ IB_QP_PKEY_INDEX, REFAULT_QP_ATTR_PKEY },
	{ IB_QP_PORT, REFAULT_QP_ATTR_PORT },
	{ IB_QP_PATH_MTU, REFAULT_QP_ATTR_PATH_MTU },
	{ IB_QP_AV, REFAULT_QP_ATTR_AV },
	{ IB_QP_DEST_QPN, REFAULT_QP_ATTR_DEST_QPN },
	{ IB_QP_RQ_PSN, REFAULT_QP_ATTR_RQ_PSN },
	{ IB_QP_SQ_PSN, REFAULT_QP_ATTR_SQ_PSN },
	{ IB_QP_TIMEOUT, REFAULT_QP_ATTR_TIMEOUT },
	{ IB_QP_RETRY_CNT, REFAULT_QP_ATTR_RETRY },
	{ IB_QP_RNR_RETRY, REFAULT_QP_ATTR_RNR_RETRY },
	{ IB_QP_MIN_RNR_TIMER, REFAULT_QP_ATTR_MIN_RNR_TIMER },
	{ IB_QP_MAX_QP_RD_ATOMIC, REFAULT_QP_ATTR_MAX_RD_ATOMIC },
	{ IB_QP_MAX_DEST_RD_ATOMIC, REFAULT_QP_ATTR_MAX_DEST_RD_ATOMIC },
	{ IB_QP_QKEY, REFAULT_QP_ATTR_QKEY },
};

/* The NIC uses the verbs values for states and path MTUs. */
static_assert(IB_QPS_RESET == REFAULT_QPS_RESET);
static_assert(IB_QPS_RTS == REFAULT_QPS_RTS);
static_assert(IB_QPS_SQE == REFAULT_QPS_SQE);
static_assert(IB_QPS_ERR == REFAULT_QPS_ERR);
static_assert(IB_MTU_4096 == 5);

static int refault_query_state(struct refault_qp *qp,
			       struct refault_qp_state *state)
{
	struct refault_object_id object = {
		.id = cpu_to_le32(qp->qpn),
	};

	return refault_cmd(to_rdev(qp->ibqp.device), REFAULT_CMD_QUERY_QP,
			   &object, sizeof(object), state, sizeof(*state));
}

static u32 refault_nic_mask(int mask)
{
	u32 nic = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(refault_attr_masks); i++)
		if (mask & refault_attr_masks[i].ib)
			nic |= refault_attr_masks[i].nic;
	return nic;
}

static int refault_check_qp_modify(struct refault_dev *dev,
				   const struct ib_qp_attr *attr, int mask)
{
	u32 rd_atomic = le32_to_cpu(dev->caps.max_rd_atomic);

	if (mask & ~IB_QP_ATTR_STANDARD_BITS ||
	    mask & (IB_QP_ALT_PATH | IB_QP_CAP))
		return -EOPNOTSUPP;
	if (mask & IB_QP_PATH_MIG_STATE &&
	    attr->path_mig_state != IB_MIG_MIGRATED)
		return -EOPNOTSUPP;
	if (mask & IB_QP_PKEY_INDEX &&
	    attr->pkey_index >= le16_to_cpu(dev->caps.pkeys))
		return -EINVAL;
	if (mask & IB_QP_PATH_MTU &&
	    (attr->path_mtu < IB_MTU_256 || attr->path_mtu > IB_MTU_4096))
		return -EINVAL;
	if (mask & IB_QP_MAX_QP_RD_ATOMIC && attr->max_rd_atomic > rd_atomic)
		return -EINVAL;
	if (mask & IB_QP_MAX_DEST_RD_ATOMIC &&
	    attr->max_dest_rd_atomic > rd_atomic)
		return -EINVAL;
	return 0;
}

/* The part of the path that only Ethernet and IP have. */
static void refault_set_roce_av(struct refault_qp *qp,
				struct refault_modify_qp *cmd,
				const struct rdma_ah_attr *ah, u32 dest_qpn)
{
	const struct ib_global_route *grh = rdma_ah_read_grh(ah);
	u16 port = rdma_get_udp_sport(grh->flow_label, qp->ibqp.qp_num,
				      dest_qpn);

	memcpy(cmd->dmac, ah->roce.dmac, sizeof(cmd->dmac));
	/* Of 20 bits; UCX sets all 32. */
	cmd->flow_label = cpu_to_le32(grh->flow_label & IB_GRH_FLOWLABEL_MASK);
	cmd->hop_limit = grh->hop_limit;
	cmd->traffic_class = grh->traffic_class;
	cmd->source_port = cpu_to_le16(port);
}

static void refault_set_av(struct refault_modify_qp *cmd,
			   const struct rdma_ah_attr *ah)
{
	cmd->dest_lid = cpu_to_le16(rdma_ah_get_dlid(ah));
	cmd->sl = rdma_ah_get_sl(ah);
	if (rdma_ah_get_ah_flags(ah) & IB_AH_GRH) {
		const struct ib_global_route *grh = rdma_ah_read_grh(ah);

		cmd->has_grh = 1;
		cmd->sgid_index = grh->sgid_index;
		memcpy(cmd->dest_gid, grh->dgid.raw, sizeof(cmd->dest_gid));
	}
}

/* @dest_qpn: the peer's number, if @mask has none. */
static int refault_cmd_modify_qp(struct refault_qp *qp,
				 const struct ib_qp_attr *attr, int mask,
				 u32 dest_qpn)
{
	struct refault_modify_qp cmd = {
		.qpn = cpu_to_le32(qp->qpn),
		.mask = cpu_to_le32(refault_nic_mask(mask)),
		.state = attr->qp_state,
		.path_mtu = attr->path_mtu,
		.timeout = attr->timeout,
		.retry_count = attr->retry_cnt,
		.rnr_retry = attr->rnr_retry,
		.min_rnr_timer = attr->min_rnr_timer,
		.max_rd_atomic = attr->max_rd_atomic,
		.max_dest_rd_atomic = attr->max_dest_rd_atomic,
		.access = cpu_to_le32(refault_access(attr->qp_access_flags)),
		.dest_qpn = cpu_to_le32(attr->dest_qp_num),
		.rq_psn = cpu_to_le32(attr->rq_psn),
		.sq_psn = cpu_to_le32(attr->sq_psn),
		.pkey_index = cpu_to_le16(attr->pkey_index),
		.port = attr->port_num,
		.qkey = cpu_to_le32(attr->qkey),
	};

	if (mask & IB_QP_DEST_QPN)
		dest_qpn = attr->dest_qp_num;
	if (mask & IB_QP_AV) {
		refault_set_av(&cmd, &attr->ah_attr);
		if (attr->ah_attr.type == RDMA_AH_ATTR_TYPE_ROCE)
			refault_set_roce_av(qp, &cmd, &attr->ah_attr, dest_qpn);
	}
	return refault_cmd(to_rdev(qp->ibqp.device), REFAULT_CMD_MODIFY_QP,
			   &cmd, sizeof(cmd), NULL, 0);
}

/* Moves a queue pair of the kernel that needs no attributes. */
int refault_qp_move(struct refault_qp *qp, enum ib_qp_state to)
{
	struct ib_qp_attr attr = { .qp_state = to };

	return refault_cmd_modify_qp(qp, &attr, IB_QP_STATE, 0);
}

/*
 * A dead NIC's queue pairs are as in the error state: polling returns what was
 * posted. To ULPs that end, it did what they asked for.
 */
static bool refault_is_flushed(const struct refault_qp *qp,
			       const struct ib_qp_attr *attr, int mask)
{
	return refault_is_kernel_qp(qp) && mask & IB_QP_STATE &&
	       attr->qp_state == IB_QPS_ERR &&
	       refault_is_dead(to_rdev(qp->ibqp.device));
}

int refault_modify_qp(struct ib_qp *ibqp, struct ib_qp_attr *attr, int mask,
		      struct ib_udata *udata)
{
	struct refault_qp *qp = to_rqp(ibqp);
	struct refault_qp_state state;
	enum ib_qp_state from, to;
	int ret;

	ret = ib_no_udata_io(udata);
	if (ret)
		return ret;
	ret = refault_check_qp_modify(to_rdev(ibqp->device), attr, mask);
	if (ret)
		return ret;

	mutex_lock(&qp->lock);
	ret = refault_query_state(qp, &state);
	if (ret)
		goto out_unlock;
	from = mask & IB_QP_CUR_STATE ? attr->cur_qp_state :
					state.attributes.state;
	to = mask & IB_QP_STATE ? attr->qp_state : from;
	if (!ib_modify_qp_is_ok(from, to, ibqp->qp_type, mask)) {
		ret = -EINVAL;
		goto out_unlock;
	}
	if (mask & IB_QP_EN_SQD_ASYNC_NOTIFY)
		WRITE_ONCE(qp->sqd_notify, attr->en_sqd_async_notify);
	ret = refault_cmd_modify_qp(qp, attr, mask,
				    le32_to_cpu(state.attributes.dest_qpn));
	if (!ret && mask & IB_QP_STATE && to == IB_QPS_RESET &&
	    refault_is_kernel_qp(qp))
		refault_qp_rings_reset(qp);
out_unlock:
	mutex_unlock(&qp->lock);
	return refault_is_flushed(qp, attr, mask) ? 0 : ret;
}

static void refault_read_av(struct ib_qp *ibqp, struct rdma_ah_attr *ah,
			    const struct refault_modify_qp *nic)
{
	ah->type = rdma_ah_find_type(ibqp->device, 1);
	rdma_ah_set_dlid(ah, le16_to_cpu(nic->dest_lid));
	rdma_ah_set_sl(ah, nic->sl);
	rdma_ah_set_port_num(ah, 1);
	if (nic->has_grh) {
		rdma_ah_set_grh(ah, NULL, le32_to_cpu(nic->flow_label),
				nic->sgid_index, nic->hop_limit,
				nic->traffic_class);
		rdma_ah_set_dgid_raw(ah, (void *)nic->dest_gid);
	}
	if (ah->type == RDMA_AH_ATTR_TYPE_ROCE)
		memcpy(ah->roce.dmac, nic->dmac, sizeof(ah->roce.dmac));
}

static void refault_read_attributes(struct ib_qp *ibqp, struct ib_qp_attr *attr,
				    const struct refault_qp_state *state)
{
	const struct refault_modify_qp *nic = &state->attributes;

	attr->qp_state = nic->state;
	attr->cur_qp_state = nic->state;
	attr->path_mtu = nic->path_mtu;
	attr->path_mig_state = IB_MIG_MIGRATED;
	attr->qkey = le32_to_cpu(nic->qkey);
	attr->rq_psn = le32_to_cpu(nic->rq_psn);
	attr->sq_psn = le32_to_cpu(nic->sq_psn);
	attr->dest_qp_num = le32_to_cpu(nic->dest_qpn);
	attr->qp_access_flags = refault_ib_access(le32_to_cpu(nic->access));
	attr->pkey_index = le16_to_cpu(nic->pkey_index);
	attr->sq_draining = le32_to_cpu(state->draining);
	attr->max_rd_atomic = nic->max_rd_atomic;
	attr->max_dest_rd_atomic = nic->max_dest_rd_atomic;
	attr->min_rnr_timer = nic->min_rnr_timer;
	attr->port_num = nic->port;
	attr->timeout = nic->timeout;
	attr->retry_cnt = nic->retry_count;
	attr->rnr_retry = nic->rnr_retry;
	refault_read_av(ibqp, &attr->ah_attr, nic);
}

int refault_query_qp(struct ib_qp *ibqp, struct ib_qp_attr *attr, int mask,
		     struct ib_qp_init_attr *init_attr)
{
	struct refault_qp *qp = to_rqp(ibqp);
	struct refault_qp_state state;
	int ret;

	ret = refault_query_state(qp, &state);
	if (ret)
		return ret;

	memset(attr, 0, sizeof(*attr));
	refault_read_attributes(ibqp, attr, &state);
	attr->cap = qp->cap;

	memset(init_attr, 0, sizeof(*init_attr));
	init_attr->qp_type = ibqp->qp_type;
	init_attr->qp_context = ibqp->qp_context;
	init_attr->send_cq = ibqp->send_cq;
	init_attr->recv_cq = ibqp->recv_cq;
	init_attr->srq = ibqp->srq;
	init_attr->sq_sig_type = qp->signal_all ? IB_SIGNAL_ALL_WR :
						  IB_SIGNAL_REQ_WR;
	init_attr->cap = qp->cap;
	return 0;
}
