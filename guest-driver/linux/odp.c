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

#include "odp.h"

static void refault_odp_init(struct refault_odp *odp, struct refault_dev *dev,
			     struct refault_mr *mr)
{
	odp->dev = dev;
	odp->mr = mr;
	refcount_set(&odp->users, 1);
	init_completion(&odp->unused);
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
	odp->mr->pbl.first_offset = odp->first - odp->base;
	return 0;
}

/* The table starts at the first page, with as few levels as will do. */
static int refault_odp_whole(struct refault_odp *odp, u64 address, int access)
{
	struct refault_mr *mr = odp->mr;
	struct ib_umem_odp *umem;
	u64 bytes;

	umem = ib_umem_odp_get(&odp->dev->ibdev, address, mr->length, access,
			       &refault_odp_notifier_ops);
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
	mr->pbl.first_offset = address - odp->base;
	return 0;
}

/* Four levels reach all of a process' memory, which is below TASK_SIZE_MAX. */
static bool refault_is_sparse(const struct refault_mr *mr, int access)
{
	return mr->length > REFAULT_WHOLE_BYTES && !(access & IB_ACCESS_HUGETLB);
}

static void refault_odp_release_umem(struct refault_odp *odp)
{
	if (odp->anchor)
		ib_umem_odp_release(odp->anchor);
	else
		refault_umem_release(odp->whole.umem);
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

	odp = kzalloc_obj(*odp);
	if (!odp)
		return -ENOMEM;
	refault_odp_init(odp, dev, mr);
	odp->first = address;
	if (refault_is_implicit(mr, address))
		ret = mr->start ? -EINVAL : refault_odp_sparse(odp, access);
	else if (mr->length > le64_to_cpu(dev->caps.max_mr_size))
		ret = -EINVAL;
	else if (refault_is_sparse(mr, access))
		ret = refault_odp_sparse(odp, access);
	else
		ret = refault_odp_whole(odp, address, access);
	if (ret)
		goto err_free;
	odp->top = refault_odp_table_alloc(odp, odp->levels - 1 >
							odp->page_level);
	if (!odp->top) {
		ret = -ENOMEM;
		goto err_release;
	}
	mr->mode = REFAULT_MR_ODP;
	mr->odp = odp;
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
 * refault_odp_destroy() - Undo refault_odp_create().
 * @odp: of a region that was destroyed on the NIC and removed from dev->mrs
 *
 * Waits for those who looked it up before. They stop at the next chunk, as a
 * prefetch may cover gigabytes.
 */
void refault_odp_destroy(struct refault_odp *odp)
{
	WRITE_ONCE(odp->leaving, true);
	refault_odp_put(odp);
	wait_for_completion(&odp->unused);
	refault_children_free(odp);
	refault_odp_release_umem(odp);
	refault_odp_tables_free(odp);
	kfree(odp);
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

void refault_odp_put(struct refault_odp *odp)
{
	if (refcount_dec_and_test(&odp->users))
		complete(&odp->unused);
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
	const struct refault_mr *mr = odp->mr;
	u64 offset = address - mr->start;

	if (!length)
		return 0;
	if (offset >= mr->length)
		return -EFAULT;
	length = min(length, mr->length - offset);
	address = odp->first + offset;
	if (odp->anchor)
		return refault_children_bring(odp, address, length, how, pages);
	return refault_part_bring(&odp->whole, address, length, how, pages);
}
