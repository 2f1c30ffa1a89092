// SPDX-License-Identifier: GPL-2.0
/*
 * Contexts: one per open device file, with a doorbell page and, where the
 * platform supports it, the process' address space bound to a PASID. All queue
 * pairs of the context use that PASID for regions in PASID mode. Without a
 * PASID the context still works, but has no such regions.
 *
 * Teardown order: stop the context, so that no queue pair starts new work;
 * destroy its objects; destroy the context on the NIC; unbind the PASID.
 */

#include <linux/delay.h>
#include <linux/iommu.h>
#include <linux/sched/mm.h>
#include <rdma/uverbs_types.h>

#include "refault.h"

/*
 * The kernel must answer all page requests of the process before its context
 * can be destroyed, and a filesystem may be slow. Each try takes 1 to 2 ms.
 */
#define REFAULT_DESTROY_TRIES 60000

static const char *refault_no_pasid_reason(struct refault_dev *dev, int err)
{
	if (!device_iommu_mapped(&dev->pdev->dev))
		return "no IOMMU serves the NIC";
	if (err == -EOPNOTSUPP)
		return "this kernel has no shared virtual addressing";
	if (!refault_has_pasid(dev))
		return "PASID, ATS or page requests of the NIC are not enabled";
	switch (err) {
	case -ENODEV:
		return "the IOMMU cannot share a process' page tables";
	case -ENOSPC:
		return "no PASID is free";
	default:
		return "the kernel cannot bind the process";
	}
}

/* Binds the calling process to a PASID, or logs once why it cannot. */
static void refault_bind_mm(struct refault_dev *dev,
			    struct refault_ucontext *uctx)
{
	struct iommu_sva *sva = ERR_PTR(REFAULT_HAVE_SVA ? -ENODEV : -EOPNOTSUPP);

	if (REFAULT_HAVE_SVA && refault_has_pasid(dev))
		sva = iommu_sva_bind_device(&dev->pdev->dev, current->mm);
	if (!IS_ERR(sva)) {
		uctx->sva = sva;
		uctx->pasid = iommu_sva_get_pasid(sva);
		return;
	}
	if (!test_and_set_bit(REFAULT_NO_PASID_LOGGED, &dev->state))
		dev_warn(&dev->pdev->dev,
			 "no PASID mode, on-demand regions %s: %s (%pe)\n",
			 refault_odp_by_table(dev) ? "use the NIC's table" :
						     "are refused",
			 refault_no_pasid_reason(dev, PTR_ERR(sva)), sva);
}

static void refault_unbind_mm(struct refault_ucontext *uctx)
{
	if (uctx->sva)
		iommu_sva_unbind_device(uctx->sva);
	uctx->sva = NULL;
}

/* Makes the context's doorbell page available to mmap(). */
static int refault_offer_doorbell(struct refault_dev *dev,
				  struct refault_ucontext *uctx)
{
	struct refault_mmap_entry *entry;
	int ret;

	if (uctx->id >= dev->doorbell_pages)
		return -EIO;
	entry = kzalloc_obj(*entry);
	if (!entry)
		return -ENOMEM;
	entry->address = dev->doorbells +
			 (phys_addr_t)uctx->id * REFAULT_DOORBELL_PAGE_SIZE;
	ret = rdma_user_mmap_entry_insert(&uctx->ibucontext,
					  &entry->rdma_entry, PAGE_SIZE);
	if (ret) {
		kfree(entry);
		return ret;
	}
	uctx->doorbell = entry;
	return 0;
}

static int refault_create_context(struct refault_dev *dev,
				  struct refault_ucontext *uctx)
{
	struct refault_create_context cmd = {
		.pasid = cpu_to_le32(uctx->pasid),
		.has_pasid = cpu_to_le32(!!uctx->sva),
	};

	return refault_cmd_create(dev, REFAULT_CMD_CREATE_CONTEXT, &cmd,
				  sizeof(cmd), &uctx->id);
}

static int refault_respond_context(struct refault_ucontext *uctx,
				   struct ib_udata *udata)
{
	u64 offset = rdma_user_mmap_get_offset(&uctx->doorbell->rdma_entry);
	struct refault_uverbs_context resp = {
		.doorbell_offset = cpu_to_le64(offset),
		.doorbell_length = cpu_to_le32(PAGE_SIZE),
		.flags = cpu_to_le32(uctx->sva ? REFAULT_UVERBS_CONTEXT_PASID : 0),
		.pasid = cpu_to_le32(uctx->pasid),
	};

	return ib_respond_udata(udata, resp);
}

int refault_alloc_ucontext(struct ib_ucontext *ibucontext,
			   struct ib_udata *udata)
{
	struct refault_ucontext *uctx = to_rucontext(ibucontext);
	struct refault_dev *dev = to_rdev(ibucontext->device);
	int ret;

	ret = ib_is_udata_in_empty(udata);
	if (ret)
		return ret;

	mmgrab(current->mm);
	uctx->mm = current->mm;
	refault_bind_mm(dev, uctx);
	ret = refault_create_context(dev, uctx);
	if (ret)
		goto err_unbind;
	ret = xa_err(xa_store(&dev->contexts, uctx->id, uctx, GFP_KERNEL));
	if (ret)
		goto err_destroy;
	ret = refault_offer_doorbell(dev, uctx);
	if (ret)
		goto err_erase;
	ret = refault_respond_context(uctx, udata);
	if (ret)
		goto err_doorbell;
	return 0;

err_doorbell:
	rdma_user_mmap_entry_remove(&uctx->doorbell->rdma_entry);
err_erase:
	xa_erase(&dev->contexts, uctx->id);
err_destroy:
	refault_cmd_destroy(dev, REFAULT_CMD_DESTROY_CONTEXT, uctx->id);
err_unbind:
	refault_unbind_mm(uctx);
	mmdrop(uctx->mm);
	return ret;
}

static void refault_stop_context(struct refault_dev *dev, u32 id)
{
	struct refault_object_id object = { .id = cpu_to_le32(id) };
	int ret;

	ret = refault_cmd_atomic(dev, REFAULT_CMD_STOP_CONTEXT, &object,
				 sizeof(object));
	if (ret && !refault_is_dead(dev))
		dev_warn_ratelimited(&dev->pdev->dev,
				     "context %u was not stopped: %pe\n", id,
				     ERR_PTR(ret));
}

/*
 * Destroying a context fails with -EBUSY until the kernel has answered every
 * page request of the process. The PASID must not be unbound before that: if
 * the process has already exited, the IOMMU driver of 7.2 does not drain the
 * page requests on unbind. (The exit cleared the present bit of the PASID
 * entry, and the unbind then takes the entry for one that was drained.) It
 * would free requests that its workers are still handling.
 */
static int refault_destroy_context(struct refault_dev *dev, u32 id)
{
	unsigned int tries;
	int ret;

	for (tries = 1;; tries++) {
		ret = refault_cmd_destroy(dev, REFAULT_CMD_DESTROY_CONTEXT, id);
		if (ret != -EBUSY || tries == REFAULT_DESTROY_TRIES)
			return ret;
		usleep_range(1000, 2000);
	}
}

void refault_dealloc_ucontext(struct ib_ucontext *ibucontext)
{
	struct refault_ucontext *uctx = to_rucontext(ibucontext);
	struct refault_dev *dev = to_rdev(ibucontext->device);

	rdma_user_mmap_entry_remove(&uctx->doorbell->rdma_entry);
	/* Before the NIC can reuse the id: see refault_stop_contexts(). */
	xa_erase(&dev->contexts, uctx->id);
	/* The address space must stay bound while the NIC may use it. */
	if (refault_destroy_context(dev, uctx->id))
		refault_die(dev, "a context could not be destroyed");
	refault_unbind_mm(uctx);
	mmdrop(uctx->mm);
}

#ifdef REFAULT_HAVE_UFILE_CLEANUP
/*
 * The device file was closed, the process exited, or the driver is being
 * unbound: the core is about to destroy the objects one by one. Stopping the
 * context first ends all of its traffic, and its page requests, at once.
 */
void refault_ufile_hw_cleanup(struct ib_uverbs_file *ufile)
{
	struct ib_ucontext *ibucontext = ufile->ucontext;

	refault_stop_context(to_rdev(ibucontext->device),
			     to_rucontext(ibucontext)->id);
}
#endif

/* Stops all contexts, before the RDMA core starts to tear them down. */
void refault_stop_contexts(struct refault_dev *dev)
{
	struct refault_ucontext *uctx;
	unsigned long id;

	xa_lock(&dev->contexts);
	xa_for_each(&dev->contexts, id, uctx)
		refault_stop_context(dev, id);
	xa_unlock(&dev->contexts);
}

/*
 * The core has already zapped the doorbell mappings; later doorbell writes of
 * the process go to an anonymous page. Nothing else is left to disconnect.
 */
void refault_disassociate_ucontext(struct ib_ucontext *ibucontext)
{
}

int refault_mmap(struct ib_ucontext *ibucontext, struct vm_area_struct *vma)
{
	struct rdma_user_mmap_entry *rdma_entry;
	struct refault_mmap_entry *entry;
	int ret;

	rdma_entry = rdma_user_mmap_entry_get(ibucontext, vma);
	if (!rdma_entry)
		return -EINVAL;
	entry = container_of(rdma_entry, struct refault_mmap_entry, rdma_entry);
	ret = rdma_user_mmap_io(ibucontext, vma, PHYS_PFN(entry->address),
				PAGE_SIZE, pgprot_noncached(vma->vm_page_prot),
				rdma_entry);
	rdma_user_mmap_entry_put(rdma_entry);
	return ret;
}

void refault_mmap_free(struct rdma_user_mmap_entry *rdma_entry)
{
	kfree(container_of(rdma_entry, struct refault_mmap_entry, rdma_entry));
}
