// SPDX-License-Identifier: GPL-2.0
/*
 * Memory regions.
 *
 * A plain region pins its pages while it exists, and the NIC gets their DMA
 * addresses. An on-demand region pins nothing. In PASID mode the NIC uses the
 * process' virtual addresses, which the IOMMU translates through the process'
 * page table, with a page request where a page is absent. Otherwise the region
 * has a sparse table of its own, maintained by the odp*.c files. The implicit
 * region is an on-demand region over the whole address space. mr_fast.c has the
 * regions that kernel ULPs fill again and again.
 */

#include <linux/sched.h>

#include "odp.h"

#define REFAULT_PAGE_SIZES (SZ_4K | SZ_2M)

static const struct {
	int ib;
	u32 nic;
} refault_access_flags[] = {
	{ IB_ACCESS_LOCAL_WRITE, REFAULT_ACCESS_LOCAL_WRITE },
	{ IB_ACCESS_REMOTE_WRITE, REFAULT_ACCESS_REMOTE_WRITE },
	{ IB_ACCESS_REMOTE_READ, REFAULT_ACCESS_REMOTE_READ },
	{ IB_ACCESS_REMOTE_ATOMIC, REFAULT_ACCESS_REMOTE_ATOMIC },
	{ IB_ACCESS_FLUSH_GLOBAL, REFAULT_ACCESS_FLUSH_GLOBAL },
	{ IB_ACCESS_FLUSH_PERSISTENT, REFAULT_ACCESS_FLUSH_PERSISTENT },
};

/* From IB_ACCESS_* to REFAULT_ACCESS_*. */
u32 refault_access(int ib_access)
{
	u32 nic = 0;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(refault_access_flags); i++)
		if (ib_access & refault_access_flags[i].ib)
			nic |= refault_access_flags[i].nic;
	return nic;
}

/* From REFAULT_ACCESS_* to IB_ACCESS_*. */
int refault_ib_access(u32 access)
{
	unsigned int i;
	int ib = 0;

	for (i = 0; i < ARRAY_SIZE(refault_access_flags); i++)
		if (access & refault_access_flags[i].nic)
			ib |= refault_access_flags[i].ib;
	return ib;
}

static int refault_pin_mr(struct refault_dev *dev, struct refault_mr *mr,
			  u64 address, int access)
{
	int ret;

	if (mr->length > le64_to_cpu(dev->caps.max_mr_size))
		return -EINVAL;
	mr->mode = REFAULT_MR_PINNED;
	mr->umem = ib_umem_get_va(&dev->ibdev, address, mr->length, access);
	if (IS_ERR(mr->umem))
		return PTR_ERR(mr->umem);
	ret = refault_pbl_init(dev, &mr->pbl, mr->umem, REFAULT_PAGE_SIZES,
			       mr->start);
	if (ret)
		ib_umem_release(mr->umem);
	return ret;
}

/* PASID mode needs no setup: the NIC uses the process' page table. */
static int refault_prepare_odp_mr(struct refault_dev *dev,
				  const struct refault_ucontext *uctx,
				  struct refault_mr *mr, u64 address, int access)
{
	int mode = refault_choose_mode(dev, uctx, mr, address, access);

	if (mode < 0)
		return mode;
	if (!refault_is_implicit(mr, address) &&
	    !access_ok(u64_to_user_ptr(address), mr->length))
		return -EFAULT;
	mr->mode = mode;
	if (mode == REFAULT_MR_ODP)
		return refault_odp_create(dev, mr, address, access);
	return 0;
}

/* Frees a region that the NIC no longer knows. */
static void refault_release_mr(struct refault_dev *dev, struct refault_mr *mr)
{
	if (mr->odp)
		refault_odp_leave(mr->odp);
	refault_pbl_free(dev, &mr->pbl);
	ib_umem_release(mr->umem);
	kfree(mr);
}

/* Has the NIC create a region, and remembers it by its key. */
int refault_create_mr(struct refault_dev *dev, struct refault_mr *mr, u32 pd)
{
	struct refault_create_mr cmd = {
		.start = cpu_to_le64(mr->start),
		.length = cpu_to_le64(mr->length),
		.table = mr->pbl.table,
		.first_offset = cpu_to_le32(mr->pbl.first_offset),
		.pd = cpu_to_le32(pd),
		.access = cpu_to_le32(mr->access),
		.mode = mr->mode,
		.fault_eqn = mr->odp ? cpu_to_le32(dev->fault_eq->eqn) : 0,
	};
	int ret;
	u32 key;

	ret = refault_cmd_create(dev, REFAULT_CMD_CREATE_MR, &cmd, sizeof(cmd),
				 &key);
	if (ret)
		return ret;
	mr->key = key;
	mr->ibmr.lkey = key;
	mr->ibmr.rkey = key;
	if (mr->odp)
		mr->odp->key = key;
	ret = xa_err(xa_store(&dev->mrs, key, mr, GFP_KERNEL));
	if (ret && refault_cmd_destroy(dev, REFAULT_CMD_DESTROY_MR, key))
		refault_die(dev, "a memory region could not be destroyed");
	return ret;
}

/* The region through which the kernel names memory by its DMA addresses. */
struct ib_mr *refault_get_dma_mr(struct ib_pd *ibpd, int access)
{
	struct refault_mr *mr = kzalloc_obj(*mr);
	int ret;

	if (!mr)
		return ERR_PTR(-ENOMEM);
	mr->access = refault_access(access);
	refault_cover_dma(mr);
	ret = refault_create_mr(to_rdev(ibpd->device), mr, to_rpd(ibpd)->id);
	if (ret) {
		kfree(mr);
		return ERR_PTR(ret);
	}
	return &mr->ibmr;
}

struct ib_mr *refault_reg_user_mr(struct ib_pd *ibpd, u64 start, u64 length,
				  u64 virt_addr, int access,
				  struct ib_dmah *dmah, struct ib_udata *udata)
{
	struct refault_ucontext *uctx = refault_udata_context(udata);
	struct refault_dev *dev = to_rdev(ibpd->device);
	struct refault_mr *mr;
	int ret;

	if (!uctx || dmah || access & IB_ACCESS_MW_BIND)
		return ERR_PTR(-EOPNOTSUPP);
	/* A forked child inherits the file, but not the bound address space. */
	if (current->mm != uctx->bond->mm)
		return ERR_PTR(-EPERM);
	if (!length)
		return ERR_PTR(-EINVAL);
	ret = ib_no_udata_io(udata);
	if (ret)
		return ERR_PTR(ret);

	mr = kzalloc_obj(*mr, GFP_KERNEL_ACCOUNT);
	if (!mr)
		return ERR_PTR(-ENOMEM);
	mr->start = virt_addr;
	mr->length = length;
	mr->access = refault_access(access);
	mr->ibmr.pd = ibpd;

	if (access & IB_ACCESS_ON_DEMAND)
		ret = refault_prepare_odp_mr(dev, uctx, mr, start, access);
	else
		ret = refault_pin_mr(dev, mr, start, access);
	if (ret) {
		kfree(mr);
		return ERR_PTR(ret);
	}
	ret = refault_create_mr(dev, mr, to_rpd(ibpd)->id);
	if (ret) {
		refault_release_mr(dev, mr);
		return ERR_PTR(ret);
	}
	return &mr->ibmr;
}

int refault_dereg_mr(struct ib_mr *ibmr, struct ib_udata *udata)
{
	struct refault_dev *dev = to_rdev(ibmr->device);
	struct refault_mr *mr = to_rmr(ibmr);
	int ret;

	/*
	 * When the command has completed, no access is in flight: only then
	 * unpin or unmap the pages. Page faults that workers are still serving
	 * get -ENOENT for their answers.
	 */
	ret = refault_cmd_destroy(dev, REFAULT_CMD_DESTROY_MR, mr->key);
	if (ret)
		return ret;
	xa_erase(&dev->mrs, mr->key);
	refault_release_mr(dev, mr);
	return 0;
}
