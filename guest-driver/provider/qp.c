// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Queue pairs: creation, modification and destruction.
 */

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include <infiniband/kern-abi.h>

#include "provider.h"

/* The driver's part follows the one of uverbs without padding. */
struct create_qp_command {
	struct ibv_create_qp_ex ibv;
	struct refault_uverbs_create_qp qp;
};

struct create_qp_response {
	struct ib_uverbs_ex_create_qp_resp ibv;
	struct refault_uverbs_qp qp;
};

static_assert(sizeof(struct create_qp_command) ==
	      sizeof(struct ibv_create_qp_ex) +
	      sizeof(struct refault_uverbs_create_qp), "create_qp_command");
static_assert(sizeof(struct create_qp_response) ==
	      sizeof(struct ib_uverbs_ex_create_qp_resp) +
	      sizeof(struct refault_uverbs_qp), "create_qp_response");

/* Returns 0 or an errno. */
static int qp_check_attr(const struct ibv_qp_init_attr_ex *attr)
{
	const struct ibv_qp_cap *cap = &attr->cap;

	if (attr->comp_mask & ~(IBV_QP_INIT_ATTR_PD |
				IBV_QP_INIT_ATTR_CREATE_FLAGS |
				IBV_QP_INIT_ATTR_SEND_OPS_FLAGS))
		return EOPNOTSUPP;
	if (attr->comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS &&
	    attr->create_flags)
		return EOPNOTSUPP;
	if (attr->qp_type != IBV_QPT_RC && attr->qp_type != IBV_QPT_UD)
		return EOPNOTSUPP;
	if (!(attr->comp_mask & IBV_QP_INIT_ATTR_PD))
		return EINVAL;
	if (cap->max_send_wr > 1U << REFAULT_MAX_LOG_WQES ||
	    cap->max_send_sge > REFAULT_MAX_SGE ||
	    cap->max_inline_data > REFAULT_MAX_INLINE)
		return EINVAL;
	/* With an SRQ the receive capabilities are ignored. */
	if (!attr->srq && (cap->max_recv_wr > 1U << REFAULT_MAX_LOG_WQES ||
			   cap->max_recv_sge > REFAULT_MAX_SGE))
		return EINVAL;
	return 0;
}

static size_t rq_offset(const struct refault_qp *qp)
{
	return (size_t)qp->sq.size * REFAULT_SQ_WQE_SIZE;
}

static size_t record_offset(const struct refault_qp *qp)
{
	return rq_offset(qp) + (size_t)qp->rq.size * REFAULT_RQ_WQE_SIZE;
}

/* Send ring, receive ring, doorbell record. */
static int qp_alloc_buffer(struct refault_qp *qp,
			   const struct ibv_qp_init_attr_ex *attr)
{
	int err;

	qp->sq.size = 1U << log2_up(attr->cap.max_send_wr);
	qp->rq.size = attr->srq ? 1 : 1U << log2_up(attr->cap.max_recv_wr);
	err = buffer_alloc(&qp->buffer,
			   record_offset(qp) + sizeof(*qp->record));
	if (err)
		return err;
	qp->sq.ring = qp->buffer.base;
	qp->rq.ring = (char *)qp->buffer.base + rq_offset(qp);
	qp->record = (void *)((char *)qp->buffer.base + record_offset(qp));
	return 0;
}

static int qp_create_command(struct refault_qp *qp, struct ibv_context *context,
			     struct ibv_qp_init_attr_ex *attr)
{
	struct create_qp_command cmd = {
		.qp.buffer = htole64((uintptr_t)qp->buffer.base),
		.qp.length = htole64(qp->buffer.length),
		.qp.rq_offset = htole32(rq_offset(qp)),
		.qp.record_offset = htole32(record_offset(qp)),
		.qp.log_sq = htole32(log2_up(qp->sq.size)),
		.qp.log_rq = htole32(log2_up(qp->rq.size)),
	};
	struct create_qp_response resp = {};

	return ibv_cmd_create_qp_ex2(context, &qp->vqp, attr, &cmd.ibv,
				     sizeof(cmd), &resp.ibv, sizeof(resp));
}

/* Sets the ibv_wr_*() operations if requested. Returns 0 or an errno. */
static int qp_offer_ops(struct refault_qp *qp,
			const struct ibv_qp_init_attr_ex *attr)
{
	int err;

	if (!(attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS))
		return 0;
	err = wr_init(qp, attr->qp_type, attr->send_ops_flags);
	if (!err)
		qp->vqp.comp_mask |= VERBS_QP_EX;
	return err;
}

struct ibv_qp *refault_create_qp_ex(struct ibv_context *context,
				    struct ibv_qp_init_attr_ex *attr)
{
	struct refault_qp *qp;
	int err;

	err = qp_check_attr(attr);
	if (err) {
		errno = err;
		return NULL;
	}
	qp = calloc(1, sizeof(*qp));
	if (!qp)
		return NULL;
	err = qp_alloc_buffer(qp, attr);
	if (err)
		goto err_free;
	/* Returns the actual capabilities in attr->cap. */
	err = qp_create_command(qp, context, attr);
	if (err)
		goto err_buffer;
	/* After the command, which initialises `vqp` and clears the rest. */
	err = qp_offer_ops(qp, attr);
	if (err)
		goto err_destroy;
	err = qp_table_add(to_context(context), qp);
	if (err)
		goto err_destroy;
	pthread_spin_init(&qp->sq.lock, PTHREAD_PROCESS_PRIVATE);
	pthread_spin_init(&qp->rq.lock, PTHREAD_PROCESS_PRIVATE);
	return &qp->vqp.qp;

err_destroy:
	ibv_cmd_destroy_qp(&qp->vqp.qp);
err_buffer:
	buffer_free(&qp->buffer);
err_free:
	free(qp);
	errno = err;
	return NULL;
}

struct ibv_qp *refault_create_qp(struct ibv_pd *pd,
				 struct ibv_qp_init_attr *attr)
{
	struct ibv_qp_init_attr_ex attr_ex = {
		.qp_context = attr->qp_context,
		.send_cq = attr->send_cq,
		.recv_cq = attr->recv_cq,
		.srq = attr->srq,
		.cap = attr->cap,
		.qp_type = attr->qp_type,
		.sq_sig_all = attr->sq_sig_all,
		.comp_mask = IBV_QP_INIT_ATTR_PD,
		.pd = pd,
	};
	struct ibv_qp *ibqp = refault_create_qp_ex(pd->context, &attr_ex);

	if (ibqp)
		attr->cap = attr_ex.cap;
	return ibqp;
}

static void queue_reset(struct refault_queue *queue)
{
	queue->head = 0;
	atomic_store(&queue->tail, 0);
}

/* Follows a move to RESET: drops requests and completions, zeroes indices. */
static void qp_reset(struct refault_qp *qp)
{
	struct refault_cq *send_cq = to_cq(qp->vqp.qp.send_cq);
	struct refault_cq *recv_cq = to_cq(qp->vqp.qp.recv_cq);

	cq_lock_pair(send_cq, recv_cq);
	cq_forget_qp(send_cq, qp->vqp.qp.qp_num);
	if (recv_cq != send_cq)
		cq_forget_qp(recv_cq, qp->vqp.qp.qp_num);
	queue_reset(&qp->sq);
	queue_reset(&qp->rq);
	atomic_store(&qp->failed, false);
	qp->record->sq_producer = 0;
	qp->record->rq_producer = 0;
	qp->record->in_error = 0;
	cq_unlock_pair(send_cq, recv_cq);
}

int refault_modify_qp(struct ibv_qp *ibqp, struct ibv_qp_attr *attr, int mask)
{
	struct ibv_modify_qp cmd = {};
	int err;

	err = ibv_cmd_modify_qp(ibqp, attr, mask, &cmd, sizeof(cmd));
	if (err || !(mask & IBV_QP_STATE))
		return err;
	if (attr->qp_state == IBV_QPS_RESET)
		qp_reset(to_qp(ibqp));
	/* Out of SQE: qp_failed() must ring again after the next error. */
	if (attr->qp_state == IBV_QPS_RTS)
		atomic_store(&to_qp(ibqp)->failed, false);
	return 0;
}

int refault_query_qp(struct ibv_qp *ibqp, struct ibv_qp_attr *attr, int mask,
		     struct ibv_qp_init_attr *init_attr)
{
	struct ibv_query_qp cmd = {};

	return ibv_cmd_query_qp(ibqp, attr, mask, init_attr, &cmd, sizeof(cmd));
}

int refault_destroy_qp(struct ibv_qp *ibqp)
{
	struct refault_cq *send_cq = to_cq(ibqp->send_cq);
	struct refault_cq *recv_cq = to_cq(ibqp->recv_cq);
	struct refault_qp *qp = to_qp(ibqp);
	int err;

	err = ibv_cmd_destroy_qp(ibqp);
	if (err)
		return err;

	cq_lock_pair(send_cq, recv_cq);
	cq_forget_qp(send_cq, ibqp->qp_num);
	if (recv_cq != send_cq)
		cq_forget_qp(recv_cq, ibqp->qp_num);
	qp_table_remove(to_context(ibqp->context), ibqp->qp_num);
	cq_unlock_pair(send_cq, recv_cq);

	pthread_spin_destroy(&qp->sq.lock);
	pthread_spin_destroy(&qp->rq.lock);
	buffer_free(&qp->buffer);
	free(qp);
	return 0;
}
