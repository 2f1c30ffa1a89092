// SPDX-License-Identifier: GPL-2.0
/*
 * Children of sparse regions. A sparse region may cover all of the process'
 * memory, but only the parts in use have a umem and a table of pages, linked
 * into the region's table. A child is 2 MiB, what one table covers. That is
 * cheap to create, and only an invalidation within the same 2 MiB makes a fault
 * retry.
 *
 * The MMU notifier removes a child from the region's xarray as soon as it has
 * lost its last page; a workqueue frees it. Until then a concurrent fault may
 * still fill it. If its table has been unlinked by then, the NIC finds a hole
 * again, and the next fault creates a new child.
 */

#include <linux/sched/mm.h>

#include "odp.h"

/* The end of what four levels of tables and a process can address. */
#define REFAULT_REACH min_t(u64, TASK_SIZE_MAX, BIT_ULL(48))

static u64 refault_child_address(const struct refault_odp_part *child)
{
	return ib_umem_start(child->umem);
}

/* Bytes from the start of what the region's table covers. */
static u64 refault_child_offset(const struct refault_odp_part *child)
{
	return refault_child_address(child) - child->odp->base;
}

static void refault_child_put(struct refault_odp_part *child)
{
	if (refcount_dec_and_test(&child->users))
		complete(&child->unused);
}

/* Undoes refault_child_alloc(). No users, and not linked for the NIC. */
static void refault_child_free(struct refault_odp_part *child)
{
	refault_umem_release(child->umem);
	refault_odp_table_free(child->odp, child->leaf);
	kfree(child);
}

/*
 * Links a child's table into the region's, unless the child has been removed
 * from the xarray since: a newer child may have taken its place. The table of
 * an older child may still be linked. The NIC may have cached the way to it, so
 * replacing it needs an invalidation, before the older child is freed.
 */
static int refault_child_link(struct refault_odp_part *child)
{
	u64 address = refault_child_address(child);
	u64 offset = refault_child_offset(child);
	struct refault_odp *odp = child->odp;
	struct refault_odp_table *table, *former = NULL;

	table = refault_odp_table_at(odp, offset, 1, true);
	if (!table)
		return -ENOMEM;
	mutex_lock(&odp->tables_lock);
	if (xa_load(&odp->children, address >> REFAULT_CHILD_SHIFT) == child) {
		former = refault_odp_table_below(table, offset, 1);
		refault_odp_table_set(table, offset, 1, child->leaf);
	}
	mutex_unlock(&odp->tables_lock);
	if (former)
		refault_odp_forget(odp, address, REFAULT_CHILD_BYTES);
	return 0;
}

/* Unlinks a child's table, unless a newer child's was linked in its place. */
static void refault_child_unlink(struct refault_odp_part *child)
{
	u64 offset = refault_child_offset(child);
	struct refault_odp *odp = child->odp;
	struct refault_odp_table *table;

	table = refault_odp_table_at(odp, offset, 1, false);
	if (!table)
		return;
	mutex_lock(&odp->tables_lock);
	if (refault_odp_table_below(table, offset, 1) == child->leaf)
		refault_odp_table_set(table, offset, 1, NULL);
	mutex_unlock(&odp->tables_lock);
}

static void refault_child_destroy(struct work_struct *work)
{
	struct refault_odp_part *child =
		container_of(work, struct refault_odp_part, destroy);
	struct refault_odp *odp = child->odp;
	u64 address = refault_child_address(child);

	refault_child_put(child);
	wait_for_completion(&child->unused);
	refault_child_unlink(child);
	refault_odp_forget(odp, address, REFAULT_CHILD_BYTES);
	refault_child_free(child);
	refault_odp_put(odp);
}

/**
 * refault_child_empty() - Remove a child without pages; a work item frees it.
 * @child: the child; its umem_mutex is held
 */
void refault_child_empty(struct refault_odp_part *child)
{
	struct refault_odp *odp = child->odp;
	unsigned long index = refault_child_address(child) >>
			      REFAULT_CHILD_SHIFT;
	bool listed;

	if (child->umem->npages)
		return;
	/* If the region is being destroyed, that frees its children too. */
	if (!refcount_inc_not_zero(&odp->users))
		return;
	xa_lock(&odp->children);
	listed = xa_load(&odp->children, index) == child;
	if (listed)
		__xa_erase(&odp->children, index);
	xa_unlock(&odp->children);
	if (listed)
		queue_work(odp->dev->odp_wq, &child->destroy);
	else
		refault_odp_put(odp);
}

static bool refault_is_mapped(struct mm_struct *mm, u64 address)
{
	bool mapped;

	if (!mmget_not_zero(mm))
		return false;
	mmap_read_lock(mm);
	mapped = find_vma_intersection(mm, address,
				       address + REFAULT_CHILD_BYTES);
	mmap_read_unlock(mm);
	mmput_async(mm);
	return mapped;
}

static struct refault_odp_part *refault_child_alloc(struct refault_odp *odp,
						    u64 address)
{
	struct refault_odp_part *child;

	child = kzalloc_obj(*child, GFP_KERNEL_ACCOUNT);
	if (!child)
		return ERR_PTR(-ENOMEM);
	child->odp = odp;
	refcount_set(&child->users, 1);
	init_completion(&child->unused);
	INIT_WORK(&child->destroy, refault_child_destroy);
	child->leaf = refault_odp_table_alloc(odp, false);
	if (!child->leaf) {
		kfree(child);
		return ERR_PTR(-ENOMEM);
	}
	child->umem = ib_umem_odp_alloc_child(odp->anchor, address,
					      REFAULT_CHILD_BYTES,
					      &refault_odp_notifier_ops);
	if (IS_ERR(child->umem)) {
		int ret = PTR_ERR(child->umem);

		refault_odp_table_free(odp, child->leaf);
		kfree(child);
		return ERR_PTR(ret);
	}
	child->umem->private = child;
	return child;
}

static struct refault_odp_part *refault_child_find(struct refault_odp *odp,
						   unsigned long index)
{
	struct refault_odp_part *child;

	xa_lock(&odp->children);
	child = xa_load(&odp->children, index);
	if (child)
		refcount_inc(&child->users);
	xa_unlock(&odp->children);
	return child;
}

/* Drops the caller's reference, and removes the child if it is empty. */
static void refault_child_leave(struct refault_odp_part *child)
{
	mutex_lock(&child->umem->umem_mutex);
	refault_child_empty(child);
	mutex_unlock(&child->umem->umem_mutex);
	refault_child_put(child);
}

static struct refault_odp_part *refault_child_make(struct refault_odp *odp,
						   u64 address)
{
	struct refault_odp_part *child;
	int ret;

	if (!refault_is_mapped(odp->anchor->umem.owning_mm, address))
		return ERR_PTR(-EFAULT);
	child = refault_child_alloc(odp, address);
	if (IS_ERR(child))
		return child;
	/* The caller's reference: once inserted, others may remove it. */
	refcount_inc(&child->users);
	ret = xa_insert(&odp->children, address >> REFAULT_CHILD_SHIFT, child,
			GFP_KERNEL);
	if (ret) {
		refault_child_free(child);
		/* Lost a race against another fault: use its child. */
		return ERR_PTR(ret == -EBUSY ? -EAGAIN : ret);
	}
	ret = refault_child_link(child);
	if (ret) {
		refault_child_leave(child);
		return ERR_PTR(ret);
	}
	return child;
}

/* Finds or creates the child of @address. Put with refault_child_leave(). */
static struct refault_odp_part *refault_child_get(struct refault_odp *odp,
						  u64 address)
{
	struct refault_odp_part *child;

	do {
		child = refault_child_find(odp,
					   address >> REFAULT_CHILD_SHIFT);
		if (!child)
			child = refault_child_make(odp, ALIGN_DOWN(address, REFAULT_CHILD_BYTES));
	} while (child == ERR_PTR(-EAGAIN));
	return child;
}

/* As refault_part_bring(), across children. */
int refault_children_bring(struct refault_odp *odp, u64 address, u64 length,
			   enum refault_bring how, u64 *pages)
{
	struct refault_odp_part *child;
	u64 end;
	int ret;

	if (address >= REFAULT_REACH)
		return -EFAULT;
	end = address + min(length, REFAULT_REACH - address);
	while (address < end) {
		u64 next = min(end, ALIGN_DOWN(address, REFAULT_CHILD_BYTES) +
					    REFAULT_CHILD_BYTES);

		child = refault_child_get(odp, address);
		if (IS_ERR(child))
			return PTR_ERR(child);
		ret = refault_part_bring(child, address, next - address, how,
					 pages);
		/* Frees it if no page came in: empty ones must not pile up. */
		refault_child_leave(child);
		if (ret)
			return ret;
		address = next;
	}
	return 0;
}

/* Frees all children. The region has no users. */
void refault_children_free(struct refault_odp *odp)
{
	struct refault_odp_part *child;
	unsigned long index;

	xa_for_each(&odp->children, index, child) {
		xa_erase(&odp->children, index);
		refault_child_unlink(child);
		refault_child_free(child);
	}
	xa_destroy(&odp->children);
}
