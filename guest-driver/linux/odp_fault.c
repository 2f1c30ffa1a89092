// SPDX-License-Identifier: GPL-2.0
/*
 * Page faults of on-demand regions: events from the NIC, and the answers.
 *
 * The interrupt handler copies an event into an object and queues it; a worker
 * brings the page in and answers. One object is preallocated for every fault
 * that the NIC may have in flight, so that faults can be served when memory is
 * short. A worker returns its object before it answers, because the answer
 * allows the NIC to send the next event. The pool can still run empty: faults
 * of destroyed regions hold objects, but are no longer in flight for the NIC.
 */

#include "odp.h"

#define CREATE_TRACE_POINTS
#include "refault_trace.h"

struct refault_fault {
	struct llist_node spare;
	struct work_struct work;
	struct refault_dev *dev;
	u64 address;
	u32 length;
	u32 key;
	u32 token;
	bool write;
	bool surplus;	/* Allocated on its own, not one of dev->faults. */
};

static int refault_answer(struct refault_dev *dev, u32 token, u32 answer)
{
	struct refault_resume_fault cmd = {
		.token = cpu_to_le32(token),
		.answer = cpu_to_le32(answer),
	};
	int ret;

	ret = refault_cmd_atomic(dev, REFAULT_CMD_RESUME_FAULT, &cmd,
				 sizeof(cmd));
	/* -ENOENT: the region was destroyed, and its faults with it. */
	if (ret && ret != -ENOENT && !refault_is_dead(dev))
		dev_warn_ratelimited(&dev->pdev->dev,
				     "page fault %#x was not answered: %pe\n",
				     token, ERR_PTR(ret));
	return ret;
}

/* Fault injection: the NIC must reject a second answer to the same fault. */
static void refault_answer_again(struct refault_dev *dev, u32 token, u32 answer)
{
	if (!refault_answer(dev, token, answer))
		dev_err(&dev->pdev->dev, "page fault %#x could be answered twice\n",
			token);
}

/*
 * Brings the pages of a fault in. Returns whether the NIC should retry; false
 * fails the request. -EBUSY and -ENOMEM are temporary: the NIC faults again.
 */
static bool refault_resolve(struct refault_odp *odp, u64 address, u32 length,
			    bool write)
{
	enum refault_bring how = write ? REFAULT_BRING_WRITE :
					 REFAULT_BRING_READ;
	u64 pages = 0;
	int ret;

	ret = refault_odp_bring(odp, address, max(length, 1U), how, &pages);
	/* The length is a hint: only the first page is required. */
	if (ret && ret != -EBUSY && ret != -ENOMEM)
		ret = refault_odp_bring(odp, address, 1, how, &pages);
	atomic64_add(pages, &odp->stats.faults);
	atomic64_inc(&odp->stats.faults_handled);
	return !ret || ret == -EBUSY || ret == -ENOMEM;
}

static void refault_fault_put(struct refault_fault *fault)
{
	if (fault->surplus)
		kfree(fault);
	else
		llist_add(&fault->spare, &fault->dev->spare_faults);
}

static void refault_fault_work(struct work_struct *work)
{
	struct refault_fault *fault =
		container_of(work, struct refault_fault, work);
	enum refault_break mistake = refault_next_break();
	struct refault_dev *dev = fault->dev;
	u32 answer = REFAULT_FAULT_REFUSED;
	u32 token = fault->token;
	struct refault_odp *odp;

	trace_fault_handling(fault->key, token, fault->address);
	odp = refault_odp_get(dev, fault->key);
	if (odp) {
		if (mistake != REFAULT_BREAK_REFUSE &&
		    refault_resolve(odp, fault->address, fault->length,
				    fault->write))
			answer = REFAULT_FAULT_RESOLVED;
		refault_odp_put(odp);
	}
	trace_fault_handled(fault->key, token, fault->address);
	refault_fault_put(fault);
	if (mistake == REFAULT_BREAK_NEVER)
		return;
	refault_answer(dev, token, answer);
	if (mistake == REFAULT_BREAK_TWICE)
		refault_answer_again(dev, token, answer);
}

/*
 * Takes an object from the pool. Only for the interrupt handler:
 * llist_del_first() needs a single consumer. GFP_ATOMIC, as it cannot sleep.
 */
static struct refault_fault *refault_fault_take(struct refault_dev *dev)
{
	struct llist_node *spare = llist_del_first(&dev->spare_faults);
	struct refault_fault *fault;

	if (spare)
		return llist_entry(spare, struct refault_fault, spare);
	fault = kzalloc_obj(*fault, GFP_ATOMIC);
	if (!fault)
		return NULL;
	fault->dev = dev;
	fault->surplus = true;
	INIT_WORK(&fault->work, refault_fault_work);
	return fault;
}

/* Called by the interrupt handler of dev->fault_eq. */
void refault_page_fault(struct refault_dev *dev, const struct refault_eqe *eqe)
{
	struct refault_fault *fault = refault_fault_take(dev);

	if (!fault) {
		dev_err_ratelimited(&dev->pdev->dev,
				    "no memory to handle a page fault\n");
		return;
	}
	fault->address = le64_to_cpu(eqe->address);
	fault->length = le32_to_cpu(eqe->length);
	fault->key = le32_to_cpu(eqe->number);
	fault->token = le32_to_cpu(eqe->token);
	fault->write = eqe->code & REFAULT_FAULT_WRITE;
	trace_fault_taken(fault->key, fault->token, fault->address);
	queue_work(dev->fault_wq, &fault->work);
}

/* Allocates the pool and the workqueues, before the NIC can send an event. */
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
	/*
	 * WQ_MEM_RECLAIM: reclaim may wait for I/O that a stalled queue pair
	 * holds up, so faults need a rescuer thread to make progress.
	 */
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

/*
 * Waits for all work. There are no regions or event queues any more, but faults
 * and advice may still be using what regions have left behind.
 */
void refault_faults_free(struct refault_dev *dev)
{
	if (!dev->faults)
		return;
	wait_event(dev->leave_wait, !atomic_read(&dev->num_odps));
	destroy_workqueue(dev->fault_wq);
	destroy_workqueue(dev->odp_wq);
	kvfree(dev->faults);
}
