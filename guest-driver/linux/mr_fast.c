// SPDX-License-Identifier: GPL-2.0
/*
 * Memory regions for fast registration, by kernel ULPs. A region is created with
 * an empty page table. A ULP fills the table for each transfer, and a request in
 * its send queue makes the region valid, another one or the peer invalid again.
 *
 * ULPs change the lower 8 bits of the key from one registration to the next, in
 * struct ib_mr. The NIC and our records know the region by the key it got first.
 */

#include "refault.h"

/* Creates a region for up to @max_pages pages, which is not valid yet. */
struct ib_mr *refault_alloc_mr(struct ib_pd *ibpd, enum ib_mr_type type,
			       u32 max_pages)
{
	struct refault_dev *dev = to_rdev(ibpd->device);
	struct refault_mr *mr;
	int ret;

	if (type != IB_MR_TYPE_MEM_REG)
		return ERR_PTR(-EOPNOTSUPP);
	if (!max_pages || max_pages > REFAULT_MAX_FAST_PAGES)
		return ERR_PTR(-EINVAL);
	mr = kzalloc_obj(*mr);
	if (!mr)
		return ERR_PTR(-ENOMEM);
	mr->mode = REFAULT_MR_FAST;
	ret = refault_pbl_alloc(dev, &mr->pbl, max_pages);
	if (ret)
		goto err_free;
	ret = refault_create_mr(dev, mr, to_rpd(ibpd)->id);
	if (ret)
		goto err_free_table;
	return &mr->ibmr;

err_free_table:
	refault_pbl_free(dev, &mr->pbl);
err_free:
	kfree(mr);
	return ERR_PTR(ret);
}

static int refault_append_page(struct ib_mr *ibmr, u64 address)
{
	struct refault_mr *mr = to_rmr(ibmr);

	if (mr->filled == le32_to_cpu(mr->pbl.table.pages))
		return -ENOMEM;
	refault_pbl_set(&mr->pbl, mr->filled++, address);
	return 0;
}

/* Fills the table of a region that is not valid. Never sleeps. */
int refault_map_mr_sg(struct ib_mr *ibmr, struct scatterlist *sg, int sg_nents,
		      unsigned int *sg_offset)
{
	struct refault_mr *mr = to_rmr(ibmr);
	int mapped;

	if (ibmr->page_size != SZ_4K)
		return -EINVAL;
	mr->filled = 0;
	mapped = ib_sg_to_pages(ibmr, sg, sg_nents, sg_offset,
				refault_append_page);
	/* ULPs may give the region another address, but not another offset. */
	mr->pbl.first_offset = ibmr->iova & (SZ_4K - 1);
	return mapped;
}

/* Fills in a request that makes a region valid. Never sleeps. */
int refault_fill_register(struct refault_sq_wqe *wqe,
			  const struct ib_reg_wr *wr)
{
	const struct refault_mr *mr = to_rmr(wr->mr);

	if (mr->mode != REFAULT_MR_FAST)
		return -EINVAL;
	wqe->opcode = REFAULT_OP_REGISTER;
	wqe->rkey = cpu_to_le32(wr->key);
	wqe->imm = cpu_to_le32(refault_access(wr->access));
	wqe->remote_addr = cpu_to_le64(mr->ibmr.iova);
	wqe->compare_add = cpu_to_le64(mr->ibmr.length);
	wqe->swap = cpu_to_le64(mr->pbl.first_offset);
	return 0;
}
