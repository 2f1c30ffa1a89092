// SPDX-License-Identifier: GPL-2.0
/*
 * On-demand regions with a table of the NIC's own: creating and destroying
 * them, finding them by key, and where in them an address lies.
 *
 * A region is whole, with one umem that has a place for each of its pages, or
 * sparse: all of the process' memory, or more than the kernel would find places
 * for. Of that only what is used is watched, in pieces (odp_child.c).
 *
 * Nothing is brought in when a region is registered. The NIC meets a hole,
 * the driver hears of it (odp_fault.c), brings the page in (odp_pages.c); the
 * MMU notifier takes it away again.
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

/* The table begins where a child may. */
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

/* As many levels as it takes; the table begins at the first page. */
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

/* What the process has is below TASK_SIZE_MAX, within reach of the levels. */
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
 * Sets @mr->odp and the table that the NIC is to be told of.
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
 * @odp: of a region that the NIC does not know any more, nor anybody by key
 *
 * Waits for those who have found it before, but not for all that they are about
 * to bring in: advice may be for gigabytes.
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

/* The on-demand region that has @key, or NULL. Put it afterwards. */
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
 * refault_odp_bring() - Bring pages in, as far as the region reaches.
 * @odp: the region
 * @address: first byte, as requests name it
 * @length: bytes
 * @how: for what
 * @pages: what the NIC has gained is added here, in 4 KiB pages
 *
 * Return: as refault_part_bring(); -EFAULT if it begins outside.
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
