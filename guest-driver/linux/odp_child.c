// SPDX-License-Identifier: GPL-2.0
/*
 * Children of sparse regions: such a region may reach all of the process'
 * memory, but only what is used of it gets a umem, and a table of pages that
 * hangs in the region's table. A child is 2 MiB, what one table covers: cheap
 * to make, and a fault is undone only by changes close to it.
 *
 * A child that has lost its last page is taken off the list at once, in the
 * MMU notifier, and freed from a workqueue. Until then a fault that is under
 * way may still fill it: if its table is not linked any more, the NIC misses
 * again and gets another child.
 */

#include <linux/sched/mm.h>

#include "odp.h"

/* What four levels of tables reach: the end of what a process has. */
#define REFAULT_REACH min_t(u64, TASK_SIZE_MAX, BIT_ULL(48))

static u64 refault_child_address(const struct refault_odp_part *child)
{
	return ib_umem_start(child->umem);
}

/* Where it lies in the region's table. */
static u64 refault_child_offset(const struct refault_odp_part *child)
{
	return refault_child_address(child) - child->odp->base;
}

static void refault_child_put(struct refault_odp_part *child)
{
	if (refcount_dec_and_test(&child->users))
		complete(&child->unused);
}

/* Nobody uses it, and the NIC does not know it. Undoes refault_child_alloc(). */
static void refault_child_free(struct refault_odp_part *child)
{
	refault_umem_release(child->umem);
	refault_odp_table_free(child->odp, child->leaf);
	kfree(child);
}

/*
 * Hangs a child's table into the region's, unless it was taken off the list
 * already, and another child may have followed it. A former child's table may
 * still be there: the NIC has to forget it, as it may remember the way.
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

/* Takes a child's table out, if it is the one that is there. */
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
 * refault_child_empty() - Let a child go if it has no pages.
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
	/* While the region itself goes it takes its children along. */
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

	child = kzalloc_obj(*child);
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

/* Lets go of a child that the caller used, and of the child if it is empty. */
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
	/* For the caller: once it is listed it may be used, and go. */
	refcount_inc(&child->users);
	ret = xa_insert(&odp->children, address >> REFAULT_CHILD_SHIFT, child,
			GFP_KERNEL);
	if (ret) {
		refault_child_free(child);
		/* Somebody else was faster. */
		return ERR_PTR(ret == -EBUSY ? -EAGAIN : ret);
	}
	ret = refault_child_link(child);
	if (ret) {
		refault_child_leave(child);
		return ERR_PTR(ret);
	}
	return child;
}

/* The child that has @address; made if there is none. Leave it afterwards. */
static struct refault_odp_part *refault_child_get(struct refault_odp *odp,
						  u64 address)
{
	struct refault_odp_part *child;

	do {
		child = refault_child_find(odp,
					   address >> REFAULT_CHILD_SHIFT);
		if (!child)
			child = refault_child_make(
				odp, ALIGN_DOWN(address, REFAULT_CHILD_BYTES));
	} while (child == ERR_PTR(-EAGAIN));
	return child;
}

/* As refault_part_bring(), in as many children as it takes. */
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
		/* If nothing came, nothing may ever: do not pile them up. */
		refault_child_leave(child);
		if (ret)
			return ret;
		address = next;
	}
	return 0;
}

/* All that are left of a region that nobody uses any more. */
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
