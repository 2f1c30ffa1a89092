// SPDX-License-Identifier: GPL-2.0
/*
 * ibv_advise_mr(): bringing pages of an on-demand region in, before the NIC
 * has to ask for them.
 *
 * The NIC shares the process' page table, so the pages are faulted in for the
 * process and nothing is to be told to the NIC. They are not held: advice is
 * not a promise.
 */

#include <linux/pagemap.h>
#include <linux/sched/signal.h>

#include "refault.h"

/* How much is faulted in before looking for signals. */
#define REFAULT_PREFETCH_BYTES SZ_1M

/*
 * Checks one element against its region. The region may be deregistered
 * right after: what follows touches the process' memory alone.
 */
static int refault_check_sge(struct refault_dev *dev, struct ib_pd *ibpd,
			     const struct ib_sge *sge, bool write)
{
	struct refault_mr *mr;
	u64 offset;
	int ret = 0;

	xa_lock(&dev->mrs);
	mr = xa_load(&dev->mrs, sge->lkey);
	if (!mr) {
		ret = -ENOENT;
		goto out_unlock;
	}
	offset = sge->addr - mr->start;
	if (mr->mode != REFAULT_MR_PASID)
		ret = -EINVAL;
	else if (mr->ibmr.pd != ibpd)
		ret = -EPERM;
	else if (write && !(mr->access & REFAULT_ACCESS_LOCAL_WRITE))
		ret = -EPERM;
	else if (offset > mr->length || sge->length > mr->length - offset)
		ret = -EINVAL;
out_unlock:
	xa_unlock(&dev->mrs);
	return ret;
}

static int refault_fault_in(u64 address, u64 length, bool write)
{
	while (length) {
		size_t bytes = min_t(u64, length, REFAULT_PREFETCH_BYTES);
		char __user *from = u64_to_user_ptr(address);

		if (!access_ok(from, bytes))
			return -EFAULT;
		if (write ? fault_in_safe_writeable(from, bytes) :
			    fault_in_readable(from, bytes))
			return -EFAULT;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
		address += bytes;
		length -= bytes;
	}
	return 0;
}

int refault_advise_mr(struct ib_pd *ibpd,
		      enum ib_uverbs_advise_mr_advice advice, u32 flags,
		      struct ib_sge *sg_list, u32 num_sge,
		      struct uverbs_attr_bundle *attrs)
{
	struct refault_dev *dev = to_rdev(ibpd->device);
	bool write = advice == IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_WRITE;
	int ret;
	u32 i;

	if (advice != IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH && !write &&
	    advice != IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT)
		return -EOPNOTSUPP;
	if (current->mm != to_rucontext(attrs->context)->mm)
		return -EPERM;
	for (i = 0; i < num_sge; i++) {
		ret = refault_check_sge(dev, ibpd, &sg_list[i], write);
		if (ret)
			return ret;
	}

	/* What is present is in the page table already, which the NIC uses. */
	if (advice == IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT)
		return 0;
	for (i = 0; i < num_sge; i++) {
		ret = refault_fault_in(sg_list[i].addr, sg_list[i].length,
				       write);
		/* Without FLUSH nobody waits for the outcome. */
		if (ret == -EFAULT && !(flags & IB_UVERBS_ADVISE_MR_FLAG_FLUSH))
			ret = 0;
		if (ret)
			return ret;
	}
	return 0;
}
