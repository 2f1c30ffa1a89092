// SPDX-License-Identifier: GPL-2.0
/*
 * Bonds: the part of a context that may outlive its device file. A bond is the
 * context's number on the NIC, and the PASID to which the process' address
 * space is bound.
 *
 * Both may have to stay for a while after the file was closed. The NIC keeps a
 * context until the kernel has answered every page request of its PASID, and
 * the kernel may be waiting for a frozen filesystem, or for a FUSE daemon that
 * never answers. Unbinding waits in the kernel for the page faults of all
 * processes, not only of its own. So closing the file does neither: a work
 * item for each bond does both, and retries as long as it takes.
 */

#include <linux/iommu.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/mm.h>

#include "refault.h"

/* Pause between two attempts to destroy a context, in milliseconds. */
#define REFAULT_LEAVE_FIRST 1
#define REFAULT_LEAVE_LAST 1000

/* Bonds that may be leaving at once. Closing one more waits. */
#define REFAULT_MAX_LEAVING 1024

/* For what a dead NIC had sent to reach the kernel, in milliseconds. */
#define REFAULT_SETTLE 100

/* How long the NIC is asked before it is reset; see refault_bonds_free(). */
#define REFAULT_LEAVE_PATIENCE (10 * HZ)

static void refault_mm_released(struct mmu_notifier *notifier,
				struct mm_struct *mm)
{
	complete_all(&container_of(notifier, struct refault_bond,
				   notifier)->released);
}

static const struct mmu_notifier_ops refault_bond_notifier_ops = {
	.release = refault_mm_released,
};

/*
 * Unbinding from a process that is alive waits for the page faults of all
 * processes, with a lock that every binding needs. So wait here before, without
 * that lock.
 *
 * Unbinding must not meet the process' exit halfway, when the IOMMU driver of
 * 7.2 is clearing the same PASID entry and would warn. So the process is either
 * kept from exiting, or its exit has passed ->release() of all notifiers.
 */
static void refault_unbind_mm(struct refault_bond *bond)
{
	struct mm_struct *mm = bond->mm;
	struct refault_dev *dev = bond->dev;
	bool alive;

	if (atomic_read(&mm->mm_users) || refault_is_dead(dev))
		iopf_queue_flush_dev(&dev->pdev->dev);
	alive = mmget_not_zero(mm);
	if (!alive)
		wait_for_completion(&bond->released);
	/* Returns when a release of the notifiers that has begun is over. */
	mmu_notifier_unregister(&bond->notifier, mm);
	iommu_sva_unbind_device(bond->sva);
	if (alive)
		mmput_async(mm);
}

static void refault_bond_free(struct refault_bond *bond)
{
	struct refault_dev *dev = bond->dev;

	if (bond->sva)
		refault_unbind_mm(bond);
	mmdrop(bond->mm);
	kfree(bond);
	atomic_dec(&dev->leaving);
	wake_up_all(&dev->leave_wait);
}

/*
 * Destroys the context on the NIC. Fails with -EBUSY until the kernel has
 * answered every page request of the process. The PASID must not be unbound
 * before that: if the process has already exited, the IOMMU driver of 7.2 does
 * not drain the page requests on unbind. (The exit cleared the present bit of
 * the PASID entry, and the unbind then takes the entry for one that was
 * drained.) It would free requests that its workers are still handling.
 */
static int refault_bond_destroy(struct refault_bond *bond)
{
	struct refault_dev *dev = bond->dev;
	int ret;

	if (!bond->on_nic)
		return 0;
	ret = refault_cmd_destroy(dev, REFAULT_CMD_DESTROY_CONTEXT, bond->id);
	if (ret && ret != -EBUSY)
		dev_warn_ratelimited(&dev->pdev->dev,
				     "context %u was not destroyed: %pe\n",
				     bond->id, ERR_PTR(ret));
	return ret;
}

static void refault_bond_work(struct work_struct *work)
{
	struct refault_bond *bond = container_of(to_delayed_work(work),
						 struct refault_bond, leave);

	if (!refault_bond_destroy(bond)) {
		refault_bond_free(bond);
		return;
	}
	queue_delayed_work(bond->dev->bond_wq, &bond->leave,
			   msecs_to_jiffies(bond->pause));
	bond->pause = min(2 * bond->pause, REFAULT_LEAVE_LAST);
}

/* Binds the calling process to a PASID. Returns 0 or an errno. */
static int refault_bind_mm(struct refault_bond *bond)
{
	struct refault_dev *dev = bond->dev;
	struct iommu_sva *sva;
	int ret;

	if (!REFAULT_HAVE_SVA)
		return -EOPNOTSUPP;
	if (!refault_has_pasid(dev))
		return -ENODEV;
	sva = iommu_sva_bind_device(&dev->pdev->dev, bond->mm);
	if (IS_ERR(sva))
		return PTR_ERR(sva);
	bond->notifier.ops = &refault_bond_notifier_ops;
	ret = mmu_notifier_register(&bond->notifier, bond->mm);
	if (ret) {
		iommu_sva_unbind_device(sva);
		return ret;
	}
	bond->sva = sva;
	bond->pasid = iommu_sva_get_pasid(sva);
	return 0;
}

/**
 * refault_bond_make() - Make a bond for the calling process.
 * @dev: the NIC
 * @no_pasid: returns why the bond has no PASID, as an errno, or 0 if it has one
 *
 * Return: the bond, without a context on the NIC yet; NULL if memory is short.
 */
struct refault_bond *refault_bond_make(struct refault_dev *dev, int *no_pasid)
{
	struct refault_bond *bond = kzalloc_obj(*bond, GFP_KERNEL_ACCOUNT);

	if (!bond)
		return NULL;
	bond->dev = dev;
	mmgrab(current->mm);
	bond->mm = current->mm;
	bond->pause = REFAULT_LEAVE_FIRST;
	init_completion(&bond->released);
	INIT_DELAYED_WORK(&bond->leave, refault_bond_work);
	*no_pasid = refault_bind_mm(bond);
	return bond;
}

/**
 * refault_bond_leave() - Have a bond undone and freed.
 * @bond: of a context that has no objects any more
 *
 * Does not wait for that, unless very many bonds are leaving already.
 */
void refault_bond_leave(struct refault_bond *bond)
{
	struct refault_dev *dev = bond->dev;
	unsigned int delay = refault_is_dead(dev) ? REFAULT_SETTLE : 0;

	wait_event(dev->leave_wait,
		   atomic_add_unless(&dev->leaving, 1, REFAULT_MAX_LEAVING));
	queue_delayed_work(dev->bond_wq, &bond->leave, msecs_to_jiffies(delay));
}

int refault_bonds_init(struct refault_dev *dev)
{
	dev->bond_wq = alloc_workqueue("refault_bond", WQ_UNBOUND,
				       REFAULT_MAX_LEAVING);
	return dev->bond_wq ? 0 : -ENOMEM;
}

/*
 * Waits until no bond is left: the driver must not go away before the last
 * PASID is unbound. There are no contexts any more.
 *
 * First the NIC is asked, which knows best what it is owed. If that takes long,
 * the reason may be an object that could not be destroyed. So the NIC is reset,
 * and then it is the kernel that says when the page faults have been handled.
 */
void refault_bonds_free(struct refault_dev *dev)
{
	if (!wait_event_timeout(dev->leave_wait, !atomic_read(&dev->leaving),
				REFAULT_LEAVE_PATIENCE)) {
		dev_info(&dev->pdev->dev,
			 "waiting for the kernel to be done with %d contexts\n",
			 atomic_read(&dev->leaving));
		refault_silence(dev);
		wait_event(dev->leave_wait, !atomic_read(&dev->leaving));
	}
	destroy_workqueue(dev->bond_wq);
}
