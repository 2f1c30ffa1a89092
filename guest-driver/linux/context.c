// SPDX-License-Identifier: GPL-2.0
/*
 * Contexts: one per open device file, with a doorbell page and, where the
 * platform supports it, the process' address space bound to a PASID. All queue
 * pairs of the context use that PASID for regions in PASID mode. Without a
 * PASID the context still works, but has no such regions.
 *
 * Teardown order: stop the context, so that no queue pair starts new work;
 * destroy its objects; then, in bond.c, destroy the context on the NIC and
 * unbind the PASID.
 */

#include <linux/iommu.h>
#include <rdma/uverbs_types.h>

#include "refault.h"

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

/* Logs once why contexts have no PASID. */
static void refault_log_no_pasid(struct refault_dev *dev, int err)
{
	if (test_and_set_bit(REFAULT_NO_PASID_LOGGED, &dev->state))
		return;
	dev_warn(&dev->pdev->dev, "no PASID mode, on-demand regions %s: %s (%pe)\n",
		 refault_odp_by_table(dev) ? "use the NIC's table" :
					     "are refused",
		 refault_no_pasid_reason(dev, err), ERR_PTR(err));
}

/* Makes the context's doorbell page available to mmap(). */
static int refault_offer_doorbell(struct refault_dev *dev,
				  struct refault_ucontext *uctx)
{
	struct refault_mmap_entry *entry;
	u32 id = uctx->bond->id;
	int ret;

	if (id >= dev->doorbell_pages)
		return -EIO;
	entry = kzalloc_obj(*entry);
	if (!entry)
		return -ENOMEM;
	entry->address = dev->doorbells +
			 (phys_addr_t)id * REFAULT_DOORBELL_PAGE_SIZE;
	ret = rdma_user_mmap_entry_insert(&uctx->ibucontext,
					  &entry->rdma_entry, PAGE_SIZE);
	if (ret) {
		kfree(entry);
		return ret;
	}
	uctx->doorbell = entry;
	return 0;
}

static int refault_create_context(struct refault_bond *bond)
{
	struct refault_create_context cmd = {
		.pasid = cpu_to_le32(bond->pasid),
		.has_pasid = cpu_to_le32(!!bond->sva),
	};
	int ret;

	ret = refault_cmd_create(bond->dev, REFAULT_CMD_CREATE_CONTEXT, &cmd,
				 sizeof(cmd), &bond->id);
	bond->on_nic = !ret;
	return ret;
}

static int refault_respond_context(struct refault_ucontext *uctx,
				   struct ib_udata *udata)
{
	u64 offset = rdma_user_mmap_get_offset(&uctx->doorbell->rdma_entry);
	struct refault_uverbs_context resp = {
		.doorbell_offset = cpu_to_le64(offset),
		.doorbell_length = cpu_to_le32(PAGE_SIZE),
		.flags = cpu_to_le32(uctx->bond->sva ?
				     REFAULT_UVERBS_CONTEXT_PASID : 0),
		.pasid = cpu_to_le32(uctx->bond->pasid),
	};

	return ib_respond_udata(udata, resp);
}

int refault_alloc_ucontext(struct ib_ucontext *ibucontext,
			   struct ib_udata *udata)
{
	struct refault_ucontext *uctx = to_rucontext(ibucontext);
	struct refault_dev *dev = to_rdev(ibucontext->device);
	struct refault_bond *bond;
	int ret, no_pasid;

	ret = ib_is_udata_in_empty(udata);
	if (ret)
		return ret;

	bond = refault_bond_make(dev, &no_pasid);
	if (!bond)
		return -ENOMEM;
	if (no_pasid)
		refault_log_no_pasid(dev, no_pasid);
	uctx->bond = bond;
	ret = refault_create_context(bond);
	if (ret)
		goto err_leave;
	ret = xa_err(xa_store(&dev->contexts, bond->id, uctx, GFP_KERNEL));
	if (ret)
		goto err_leave;
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
	xa_erase(&dev->contexts, bond->id);
err_leave:
	refault_bond_leave(bond);
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

void refault_dealloc_ucontext(struct ib_ucontext *ibucontext)
{
	struct refault_ucontext *uctx = to_rucontext(ibucontext);
	struct refault_dev *dev = to_rdev(ibucontext->device);

	rdma_user_mmap_entry_remove(&uctx->doorbell->rdma_entry);
	/* Before the NIC can reuse the id: see refault_stop_contexts(). */
	xa_erase(&dev->contexts, uctx->bond->id);
	refault_bond_leave(uctx->bond);
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
			     to_rucontext(ibucontext)->bond->id);
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
