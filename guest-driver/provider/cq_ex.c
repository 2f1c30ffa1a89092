// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Extended completion queues: polling entry by entry, and reading only selected
 * fields. The lock is held from ibv_start_poll() to ibv_end_poll(), which also
 * keeps the current entry from being overwritten.
 */

#include <endian.h>
#include <errno.h>

#include "provider.h"

/* No wall clock timestamps: the NIC has no wall clock. */
#define WC_FLAGS (IBV_WC_STANDARD_FLAGS | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP)

static struct refault_cq *from_ex(struct ibv_cq_ex *cq_ex)
{
	return container_of(cq_ex, struct refault_cq, vcq.cq_ex);
}

/* Returns ENOENT if there is no entry. */
static int cq_advance(struct refault_cq *cq)
{
	const struct refault_cqe *cqe = cq_take(cq);

	if (!cqe)
		return ENOENT;
	cq->current = cqe;
	cq->vcq.cq_ex.wr_id = le64toh(cqe->wr_id);
	cq->vcq.cq_ex.status = cqe->status;
	return 0;
}

static int cq_start_poll(struct ibv_cq_ex *cq_ex, struct ibv_poll_cq_attr *attr)
{
	struct refault_cq *cq = from_ex(cq_ex);
	int err;

	if (attr->comp_mask)
		return EINVAL;
	cq_lock(cq);
	err = cq_advance(cq);
	/* On failure the caller does not call ibv_end_poll(). */
	if (err)
		cq_unlock(cq);
	return err;
}

static int cq_next_poll(struct ibv_cq_ex *cq_ex)
{
	return cq_advance(from_ex(cq_ex));
}

static void cq_end_poll(struct ibv_cq_ex *cq_ex)
{
	struct refault_cq *cq = from_ex(cq_ex);

	cq_publish_consumer(cq);
	cq_unlock(cq);
}

static enum ibv_wc_opcode read_opcode(struct ibv_cq_ex *cq_ex)
{
	return cqe_opcode(from_ex(cq_ex)->current);
}

static uint32_t read_vendor_err(struct ibv_cq_ex *cq_ex)
{
	return le32toh(from_ex(cq_ex)->current->vendor_error);
}

static unsigned int read_wc_flags(struct ibv_cq_ex *cq_ex)
{
	return cqe_wc_flags(from_ex(cq_ex)->current);
}

static uint32_t read_byte_len(struct ibv_cq_ex *cq_ex)
{
	return le32toh(from_ex(cq_ex)->current->byte_len);
}

static __be32 read_imm_data(struct ibv_cq_ex *cq_ex)
{
	return cqe_imm_data(from_ex(cq_ex)->current);
}

static uint32_t read_qp_num(struct ibv_cq_ex *cq_ex)
{
	return le32toh(from_ex(cq_ex)->current->qpn);
}

static uint32_t read_src_qp(struct ibv_cq_ex *cq_ex)
{
	return le32toh(from_ex(cq_ex)->current->src_qpn);
}

static uint32_t read_slid(struct ibv_cq_ex *cq_ex)
{
	return le16toh(from_ex(cq_ex)->current->src_lid);
}

static uint8_t read_sl(struct ibv_cq_ex *cq_ex)
{
	return cqe_sl(from_ex(cq_ex)->current);
}

/* The port has a single LID (LMC 0). */
static uint8_t read_dlid_path_bits(struct ibv_cq_ex *cq_ex)
{
	return 0;
}

static uint64_t read_completion_ts(struct ibv_cq_ex *cq_ex)
{
	return le64toh(from_ex(cq_ex)->current->timestamp_ns);
}

/*
 * Sets the operations for @wc_flags (IBV_WC_EX_WITH_*). Returns 0, or an errno
 * if completion entries lack one of these fields.
 */
int cq_ex_init(struct refault_cq *cq, uint64_t wc_flags)
{
	struct ibv_cq_ex *ex = &cq->vcq.cq_ex;

	if (wc_flags & ~(uint64_t)WC_FLAGS)
		return EOPNOTSUPP;

	ex->start_poll = cq_start_poll;
	ex->next_poll = cq_next_poll;
	ex->end_poll = cq_end_poll;
	ex->read_opcode = read_opcode;
	ex->read_vendor_err = read_vendor_err;
	ex->read_wc_flags = read_wc_flags;
	if (wc_flags & IBV_WC_EX_WITH_BYTE_LEN)
		ex->read_byte_len = read_byte_len;
	if (wc_flags & IBV_WC_EX_WITH_IMM)
		ex->read_imm_data = read_imm_data;
	if (wc_flags & IBV_WC_EX_WITH_QP_NUM)
		ex->read_qp_num = read_qp_num;
	if (wc_flags & IBV_WC_EX_WITH_SRC_QP)
		ex->read_src_qp = read_src_qp;
	if (wc_flags & IBV_WC_EX_WITH_SLID)
		ex->read_slid = read_slid;
	if (wc_flags & IBV_WC_EX_WITH_SL)
		ex->read_sl = read_sl;
	if (wc_flags & IBV_WC_EX_WITH_DLID_PATH_BITS)
		ex->read_dlid_path_bits = read_dlid_path_bits;
	if (wc_flags & IBV_WC_EX_WITH_COMPLETION_TIMESTAMP)
		ex->read_completion_ts = read_completion_ts;
	return 0;
}
