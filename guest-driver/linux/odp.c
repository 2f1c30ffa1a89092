// SPDX-License-Identifier: GPL-2.0
/*
 * On-demand regions that the NIC translates: creation, destruction, lookup by
 * key, and the mapping of request addresses to process addresses.
 *
 * A region is either whole, with one umem and its per-page arrays, or sparse:
 * the implicit region, or one too long for such arrays. A sparse region has
 * umems only for the 2 MiB pieces that are in use (odp_child.c).
 *
 * Registration brings nothing in. When the NIC finds a hole it sends an event
 * (odp_fault.c) and the driver brings the page in (odp_pages.c). The MMU
 * notifier takes it out again.
 */

#include <linux/memcontrol.h>
#include <linux/sched/mm.h>

#include "odp.h"

static void refault_odp_release_umem(struct refault_odp *odp)
{
	if (odp->anchor)
		ib_umem_odp_release(odp->anchor);
	else
		refault_umem_release(odp->whole.umem);
}

/* Frees a region that has no users. */
static void refault_odp_free(struct refault_odp *odp)
{
	struct refault_dev *dev = odp->dev;

	refault_children_free(odp);
	refault_odp_release_umem(odp);
	refault_odp_tables_free(odp);
	kfree(odp);
	atomic_dec(&dev->num_odps);
	wake_up_all(&dev->leave_wait);
}

static void refault_odp_free_work(struct work_struct *work)
{
	refault_odp_free(container_of(work, struct refault_odp, free));
}

static void refault_odp_init(struct refault_odp *odp, struct refault_dev *dev,
			     const struct refault_mr *mr, u64 address)
{
	odp->dev = dev;
	odp->start = mr->start;
	odp->length = mr->length;
	odp->first = address;
	refcount_set(&odp->users, 1);
	INIT_WORK(&odp->free, refault_odp_free_work);
	mutex_init(&odp->tables_lock);
	xa_init(&odp->children);
	odp->whole.odp = odp;
}

/* Aligns the table to children, so that each child is one table of pages. */
static int refault_odp_sparse(struct refault_odp *odp, int access)
{
	odp->anchor = ib_umem_odp_alloc_implicit(&odp->dev->ibdev, access);
	if (IS_ERR(odp->anchor))
		return PTR_ERR(odp->anchor);
	odp->base = ALIGN_DOWN(odp->first, REFAULT_CHILD_BYTES);
	odp->levels = REFAULT_ODP_MAX_LEVELS;
	return 0;
}

/* The table starts at the first page, with as few levels as will do. */
static int refault_odp_whole(struct refault_odp *odp, int access)
{
	struct ib_umem_odp *umem;
	u64 bytes;

	umem = ib_umem_odp_get(&odp->dev->ibdev, odp->first, odp->length,
			       access, &refault_odp_notifier_ops);
	if (IS_ERR(umem))
		return PTR_ERR(umem);
	umem->private = &odp->whole;
	odp->whole.umem = umem;
	odp->page_level = umem->page_shift == PAGE_SHIFT ? 0 : 1;
	bytes = ib_umem_end(umem) - ib_umem_start(umem);
	odp->levels = odp->page_level + 1;
	while (bytes > BIT_ULL(PAGE_SHIFT + odp->levels * REFAULT_WORDS_SHIFT))
		odp->levels++;
	if (odp->levels > REFAULT_ODP_MAX_LEVELS) {
		ib_umem_odp_release(umem);
		return -EFBIG;
	}
	odp->base = ib_umem_start(umem);
	return 0;
}

/* Four levels reach all of a process' memory, which is below TASK_SIZE_MAX. */
static bool refault_is_sparse(const struct refault_mr *mr, int access)
{
	return mr->length > REFAULT_WHOLE_BYTES && !(access & IB_ACCESS_HUGETLB);
}

/**
 * refault_odp_create() - Prepare the on-demand side of a memory region.
 * @dev: the NIC
 * @mr: the region; start, length and access are set
 * @address: the process' address of its first byte
 * @access: IB_ACCESS_*
 *
 * Sets @mr->mode, @mr->odp and the root of the table in @mr->pbl.
 *
 * Return: 0 or an errno.
 */
int refault_odp_create(struct refault_dev *dev, struct refault_mr *mr,
		       u64 address, int access)
{
	struct refault_odp *odp;
	int ret;

	odp = kzalloc_obj(*odp, GFP_KERNEL_ACCOUNT);
	if (!odp)
		return -ENOMEM;
	refault_odp_init(odp, dev, mr, address);
	if (refault_is_implicit(mr, address))
		ret = mr->start ? -EINVAL : refault_odp_sparse(odp, access);
	else if (mr->length > le64_to_cpu(dev->caps.max_mr_size))
		ret = -EINVAL;
	else if (refault_is_sparse(mr, access))
		ret = refault_odp_sparse(odp, access);
	else
		ret = refault_odp_whole(odp, access);
	if (ret)
		goto err_free;
	odp->top = refault_odp_table_alloc(odp, odp->levels - 1 >
							odp->page_level);
	if (!odp->top) {
		ret = -ENOMEM;
		goto err_release;
	}
	atomic_inc(&dev->num_odps);
	mr->mode = REFAULT_MR_ODP;
	mr->odp = odp;
	mr->pbl.first_offset = odp->first - odp->base;
	mr->pbl.table.root = cpu_to_le64(odp->top->dma);
	mr->pbl.table.levels = odp->levels;
	mr->pbl.table.page_shift = PAGE_SHIFT;
	return 0;

err_release:
	refault_odp_release_umem(odp);
err_free:
	kfree(odp);
	return ret;
}

/**
 * refault_odp_leave() - Undo refault_odp_create(), now or later.
 * @odp: of a region that was destroyed on the NIC and removed from dev->mrs
 *
 * Those who looked it up before may still be using it. They stop at the next
 * chunk, as a prefetch may cover gigabytes; but the kernel may take for ever to
 * bring a page in, and then the last of them frees it.
 */
void refault_odp_leave(struct refault_odp *odp)
{
	WRITE_ONCE(odp->leaving, true);
	if (refcount_dec_and_test(&odp->users))
		refault_odp_free(odp);
}

/* The on-demand region with @key, or NULL. Release with refault_odp_put(). */
struct refault_odp *refault_odp_get(struct refault_dev *dev, u32 key)
{
	struct refault_odp *odp = NULL;
	struct refault_mr *mr;

	xa_lock(&dev->mrs);
	mr = xa_load(&dev->mrs, key);
	if (mr && mr->odp) {
		odp = mr->odp;
		refcount_inc(&odp->users);
	}
	xa_unlock(&dev->mrs);
	return odp;
}

/* May be called from the MMU notifier, which cannot free the region itself. */
void refault_odp_put(struct refault_odp *odp)
{
	if (refcount_dec_and_test(&odp->users))
		queue_work(odp->dev->odp_wq, &odp->free);
}

/* The process' control group pays for tables, also if a work item needs them. */
static struct mem_cgroup *refault_odp_payer(const struct refault_odp *odp)
{
	const struct ib_umem_odp *umem = odp->anchor ?: odp->whole.umem;

	return get_mem_cgroup_from_mm(umem->umem.owning_mm);
}

/**
 * refault_odp_bring() - Bring pages in, up to the end of the region.
 * @odp: the region
 * @address: first byte, as an address that requests use
 * @length: bytes
 * @how: the access wanted
 * @pages: incremented by the 4 KiB pages that the NIC gained
 *
 * Return: as refault_part_bring(); -EFAULT if @address is outside the region.
 */
int refault_odp_bring(struct refault_odp *odp, u64 address, u64 length,
		      enum refault_bring how, u64 *pages)
{
	u64 offset = address - odp->start;
	struct mem_cgroup *payer, *former;
	int ret;

	if (!length)
		return 0;
	if (offset >= odp->length)
		return -EFAULT;
	length = min(length, odp->length - offset);
	address = odp->first + offset;
	payer = refault_odp_payer(odp);
	former = set_active_memcg(payer);
	if (odp->anchor)
		ret = refault_children_bring(odp, address, length, how, pages);
	else
		ret = refault_part_bring(&odp->whole, address, length, how,
					 pages);
	set_active_memcg(former);
	mem_cgroup_put(payer);
	return ret;
}
