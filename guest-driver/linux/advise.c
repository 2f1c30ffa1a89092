// SPDX-License-Identifier: GPL-2.0
/*
 * ibv_advise_mr(): prefetch of pages of an on-demand region. The pages are not
 * pinned and may go away again at any time.
 *
 * In PASID mode the NIC uses the process' page table, so faulting the pages in
 * for the process is all there is to do. A region with a table of its own gets
 * them into that table: synchronously with FLUSH, else from a workqueue.
 */

#include <linux/pagemap.h>
#include <linux/sched/signal.h>

#include "odp.h"

/* Bytes brought in between two checks for a fatal signal. */
#define REFAULT_PREFETCH_BYTES SZ_1M

/* Advice for one piece of a region. */
struct refault_advice {
	struct refault_odp *odp;	/* Referenced; NULL in PASID mode. */
	u64 address;
	u64 length;
};

/* A call's advice; without FLUSH, queued as one work item. */
struct refault_prefetch {
	struct work_struct work;
	enum refault_bring how;
	u32 count;
	struct refault_advice list[];
};

static int refault_check_sge(const struct refault_mr *mr,
			     const struct ib_pd *ibpd, const struct ib_sge *sge,
			     enum refault_bring how)
{
	u64 offset = sge->addr - mr->start;

	if (mr->mode == REFAULT_MR_PINNED)
		return -EINVAL;
	if (mr->ibmr.pd != ibpd)
		return -EPERM;
	if (how == REFAULT_BRING_WRITE &&
	    !(mr->access & REFAULT_ACCESS_LOCAL_WRITE))
		return -EPERM;
	if (offset > mr->length || sge->length > mr->length - offset)
		return -EINVAL;
	return 0;
}

/*
 * Checks one element against its region. A region with a table is referenced.
 * A region in PASID mode needs no reference: only the process' memory is
 * touched from here on, so the region may be deregistered at any time.
 */
static int refault_take_advice(struct refault_dev *dev, struct ib_pd *ibpd,
			       const struct ib_sge *sge, enum refault_bring how,
			       struct refault_advice *advice)
{
	struct refault_mr *mr;
	int ret = -ENOENT;

	xa_lock(&dev->mrs);
	mr = xa_load(&dev->mrs, sge->lkey);
	if (mr)
		ret = refault_check_sge(mr, ibpd, sge, how);
	if (!ret) {
		advice->odp = mr->odp;
		advice->address = sge->addr;
		advice->length = sge->length;
		if (mr->odp)
			refcount_inc(&mr->odp->users);
	}
	xa_unlock(&dev->mrs);
	return ret;
}

static void refault_drop_advice(struct refault_prefetch *prefetch)
{
	u32 i;

	for (i = 0; i < prefetch->count; i++)
		if (prefetch->list[i].odp)
			refault_odp_put(prefetch->list[i].odp);
	kvfree(prefetch);
}

/* PASID mode: a page present for the process is present for the NIC. */
static int refault_fault_in(u64 address, size_t bytes, enum refault_bring how)
{
	char __user *from = u64_to_user_ptr(address);

	if (how == REFAULT_BRING_PRESENT)
		return 0;
	if (!access_ok(from, bytes))
		return -EFAULT;
	if (how == REFAULT_BRING_WRITE ? fault_in_safe_writeable(from, bytes) :
					 fault_in_readable(from, bytes))
		return -EFAULT;
	return 0;
}

static int refault_bring_in(struct refault_odp *odp, u64 address, size_t bytes,
			    enum refault_bring how)
{
	u64 pages = 0;
	int ret;

	ret = refault_odp_bring(odp, address, bytes, how, &pages);
	atomic64_add(pages, &odp->stats.prefetch);
	return ret;
}

static int refault_follow(const struct refault_advice *advice,
			  enum refault_bring how)
{
	u64 address = advice->address, left = advice->length;
	int ret;

	while (left) {
		size_t bytes = min_t(u64, left, REFAULT_PREFETCH_BYTES);

		if (advice->odp)
			ret = refault_bring_in(advice->odp, address, bytes, how);
		else
			ret = refault_fault_in(address, bytes, how);
		if (ret)
			return ret;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
		address += bytes;
		left -= bytes;
	}
	return 0;
}

static void refault_prefetch_work(struct work_struct *work)
{
	struct refault_prefetch *prefetch =
		container_of(work, struct refault_prefetch, work);
	u32 i;

	/* Errors are dropped: the NIC will fault on pages that are missing. */
	for (i = 0; i < prefetch->count; i++)
		if (prefetch->list[i].odp)
			refault_follow(&prefetch->list[i], prefetch->how);
	refault_drop_advice(prefetch);
}

/*
 * The synchronous part: everything with FLUSH. Without FLUSH only regions in
 * PASID mode, which must be faulted in from the process' own context; -EFAULT
 * is then not an error, since the call did not promise success.
 */
static int refault_follow_now(struct refault_prefetch *prefetch, bool flush)
{
	int ret = 0;
	u32 i;

	for (i = 0; i < prefetch->count && !ret; i++) {
		if (prefetch->list[i].odp && !flush)
			continue;
		ret = refault_follow(&prefetch->list[i], prefetch->how);
		if (ret == -EFAULT && !flush)
			ret = 0;
	}
	return ret;
}

static int refault_bring_for(enum ib_uverbs_advise_mr_advice advice,
			     enum refault_bring *how)
{
	switch (advice) {
	case IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH:
		*how = REFAULT_BRING_READ;
		return 0;
	case IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_WRITE:
		*how = REFAULT_BRING_WRITE;
		return 0;
	case IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT:
		*how = REFAULT_BRING_PRESENT;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

int refault_advise_mr(struct ib_pd *ibpd,
		      enum ib_uverbs_advise_mr_advice advice, u32 flags,
		      struct ib_sge *sg_list, u32 num_sge,
		      struct uverbs_attr_bundle *attrs)
{
	bool flush = flags & IB_UVERBS_ADVISE_MR_FLAG_FLUSH, tables = false;
	struct refault_dev *dev = to_rdev(ibpd->device);
	struct refault_prefetch *prefetch;
	enum refault_bring how;
	int ret;
	u32 i;

	ret = refault_bring_for(advice, &how);
	if (ret)
		return ret;
	if (current->mm != to_rucontext(attrs->context)->bond->mm)
		return -EPERM;
	prefetch = kvzalloc(struct_size(prefetch, list, num_sge),
			    GFP_KERNEL_ACCOUNT);
	if (!prefetch)
		return -ENOMEM;
	INIT_WORK(&prefetch->work, refault_prefetch_work);
	prefetch->how = how;
	for (i = 0; i < num_sge && !ret; i++) {
		ret = refault_take_advice(dev, ibpd, &sg_list[i], how,
					  &prefetch->list[i]);
		if (!ret) {
			prefetch->count++;
			tables |= !!prefetch->list[i].odp;
		}
	}
	if (!ret)
		ret = refault_follow_now(prefetch, flush);
	if (ret || flush || !tables)
		refault_drop_advice(prefetch);
	else
		queue_work(dev->odp_wq, &prefetch->work);
	return ret;
}
