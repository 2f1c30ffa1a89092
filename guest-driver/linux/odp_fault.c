// SPDX-License-Identifier: GPL-2.0
/*
 * Page faults of on-demand regions: the NIC's events, and our answers.
 *
 * The interrupt only copies an event into an object that was set aside, one for
 * every fault that the NIC may have in flight, and queues it. A worker brings
 * the page in and answers. It gives the object back before it answers: with
 * the answer the NIC is free to send the next event.
 */

#include "odp.h"

struct refault_fault {
	struct llist_node spare;
	struct work_struct work;
	struct refault_dev *dev;
	u64 address;
	u32 length;
	u32 key;
	u32 token;
	bool write;
};

static void refault_answer(struct refault_dev *dev, u32 token, u32 answer)
{
	struct refault_resume_fault cmd = {
		.token = cpu_to_le32(token),
		.answer = cpu_to_le32(answer),
	};
	int ret;

	ret = refault_cmd_atomic(dev, REFAULT_CMD_RESUME_FAULT, &cmd,
				 sizeof(cmd));
	/* The region may have gone meanwhile, and the fault with it. */
	if (ret && ret != -ENOENT && !refault_is_dead(dev))
		dev_warn_ratelimited(&dev->pdev->dev,
				     "page fault %#x was not answered: %pe\n",
				     token, ERR_PTR(ret));
}

/* Whether the NIC shall look again; else there is no such page. */
static bool refault_resolve(struct refault_odp *odp, u64 address, u32 length,
			    bool write)
{
	enum refault_bring how = write ? REFAULT_BRING_WRITE :
					 REFAULT_BRING_READ;
	u64 pages = 0;
	int ret;

	ret = refault_odp_bring(odp, address, max(length, 1U), how, &pages);
	/* The length is advice: what counts is the first page. */
	if (ret && ret != -EBUSY && ret != -ENOMEM)
		ret = refault_odp_bring(odp, address, 1, how, &pages);
	atomic64_add(pages, &odp->stats.faults);
	atomic64_inc(&odp->stats.faults_handled);
	return !ret || ret == -EBUSY || ret == -ENOMEM;
}

static void refault_fault_work(struct work_struct *work)
{
	struct refault_fault *fault =
		container_of(work, struct refault_fault, work);
	struct refault_dev *dev = fault->dev;
	u32 token = fault->token;
	struct refault_odp *odp;
	bool there = false;

	odp = refault_odp_get(dev, fault->key);
	if (odp) {
		there = refault_resolve(odp, fault->address, fault->length,
					fault->write);
		refault_odp_put(odp);
	}
	llist_add(&fault->spare, &dev->spare_faults);
	refault_answer(dev, token, there ? REFAULT_FAULT_RESOLVED :
					   REFAULT_FAULT_REFUSED);
}

/* Called by the handler of the one event queue that has page faults. */
void refault_page_fault(struct refault_dev *dev, const struct refault_eqe *eqe)
{
	struct llist_node *spare = llist_del_first(&dev->spare_faults);
	struct refault_fault *fault;

	if (!spare) {
		dev_err_ratelimited(&dev->pdev->dev,
				    "more page faults than the NIC may have\n");
		return;
	}
	fault = llist_entry(spare, struct refault_fault, spare);
	fault->address = le64_to_cpu(eqe->address);
	fault->length = le32_to_cpu(eqe->length);
	fault->key = le32_to_cpu(eqe->number);
	fault->token = le32_to_cpu(eqe->token);
	fault->write = eqe->code & REFAULT_FAULT_WRITE;
	queue_work(dev->fault_wq, &fault->work);
}

/* What serves on-demand regions, before the first event may come. */
int refault_faults_init(struct refault_dev *dev)
{
	u32 count = le32_to_cpu(dev->caps.page_faults), i;

	init_llist_head(&dev->spare_faults);
	if (!refault_has_odp(dev))
		return 0;
	dev->faults = kvcalloc(count, sizeof(*dev->faults), GFP_KERNEL);
	if (!dev->faults)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		dev->faults[i].dev = dev;
		INIT_WORK(&dev->faults[i].work, refault_fault_work);
		llist_add(&dev->faults[i].spare, &dev->spare_faults);
	}
	/* Reclaim may wait for what a stalled queue pair holds up. */
	dev->fault_wq = alloc_workqueue("refault_fault", WQ_HIGHPRI |
					WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!dev->fault_wq)
		goto err_free;
	dev->odp_wq = alloc_workqueue("refault_odp", WQ_UNBOUND, 0);
	if (!dev->odp_wq)
		goto err_destroy;
	return 0;

err_destroy:
	destroy_workqueue(dev->fault_wq);
err_free:
	kvfree(dev->faults);
	return -ENOMEM;
}

/* Afterwards no work of ours is running: there are no regions, and no events. */
void refault_faults_free(struct refault_dev *dev)
{
	if (!dev->faults)
		return;
	destroy_workqueue(dev->fault_wq);
	destroy_workqueue(dev->odp_wq);
	kvfree(dev->faults);
}
