// SPDX-License-Identifier: GPL-2.0
/*
 * Event queues: events from the NIC, one ring per MSI-X vector.
 *
 * Vector 0 is for asynchronous events, vectors 1 and up are the completion
 * vectors of verbs, and the last one is for page faults of on-demand regions.
 * With too few vectors, vector 0 is shared.
 *
 * Interrupt handlers look objects up by number without a lock. Destruction
 * removes the object from its xarray first and then calls synchronize_irq(), so
 * no handler can be using an object when it is freed.
 */

#include <linux/interrupt.h>

#include "odp.h"

#define REFAULT_LOG_EQES 10
#define REFAULT_EQES BIT(REFAULT_LOG_EQES)
#define REFAULT_EQ_BYTES (REFAULT_EQES * REFAULT_EQE_SIZE)

static const struct refault_eqe *refault_eq_next(const struct refault_eq *eq)
{
	const struct refault_eqe *eqe = &eq->ring[eq->consumer & (REFAULT_EQES - 1)];
	/* The first pass over the ring writes phase 1, the second 0. */
	bool phase = !((eq->consumer >> REFAULT_LOG_EQES) & 1);

	if ((le32_to_cpu(READ_ONCE(eqe->owner)) & REFAULT_OWNER_PHASE) != phase)
		return NULL;
	/* The NIC writes the phase last: read it before the rest. */
	dma_rmb();
	return eqe;
}

static void refault_eq_arm(const struct refault_eq *eq)
{
	writel((eq->consumer & ~REFAULT_EQ_ARM) | REFAULT_EQ_ARM,
	       eq->dev->regs + REFAULT_REG_EQ_DOORBELL + 4 * eq->eqn);
}

static void refault_handle_event(struct refault_dev *dev,
				 const struct refault_eqe *eqe)
{
	u32 number = le32_to_cpu(eqe->number);

	switch (eqe->kind) {
	case REFAULT_EVENT_COMPLETION:
		refault_cq_complete(dev, number);
		break;
	case REFAULT_EVENT_QP:
		refault_qp_event(dev, number, eqe->code);
		break;
	case REFAULT_EVENT_PAGE_FAULT:
		refault_page_fault(dev, eqe);
		break;
	case REFAULT_EVENT_SRQ:
		refault_srq_event(dev, number, eqe->code);
		break;
	case REFAULT_EVENT_PORT:
		refault_port_event(dev, eqe->code);
		break;
	case REFAULT_EVENT_CQ_ERROR:
		refault_cq_error(dev, number);
		break;
	case REFAULT_EVENT_DEVICE_FATAL:
		refault_die(dev, "the NIC reported a fatal error");
		break;
	default:
		dev_warn_ratelimited(&dev->pdev->dev,
				     "unknown event %#x for object %#x\n",
				     eqe->kind, number);
	}
}

/*
 * Handles at most one ring of events per interrupt. Arming passes the consumer
 * index, so the NIC interrupts again if there are more.
 */
static irqreturn_t refault_eq_interrupt(int irq, void *data)
{
	struct refault_eq *eq = data;
	unsigned int budget = REFAULT_EQES;
	const struct refault_eqe *eqe;

	while (budget-- && (eqe = refault_eq_next(eq))) {
		refault_handle_event(eq->dev, eqe);
		eq->consumer++;
	}
	refault_eq_arm(eq);
	return IRQ_HANDLED;
}

static int refault_eq_create(struct refault_eq *eq, u16 vector)
{
	struct refault_create_eq cmd = {
		.ring.root = cpu_to_le64(eq->dma),
		.ring.pages = cpu_to_le32(REFAULT_EQ_BYTES / SZ_4K),
		.ring.page_shift = ilog2(SZ_4K),
		.log_size = REFAULT_LOG_EQES,
		.vector = cpu_to_le16(vector),
	};

	return refault_cmd_create(eq->dev, REFAULT_CMD_CREATE_EQ, &cmd,
				  sizeof(cmd), &eq->eqn);
}

/*
 * Spreads the completion vectors over the CPUs. This is only the initial
 * affinity: the administrator may change it, and CPU hotplug moves vectors.
 */
static void refault_spread_vector(struct refault_eq *eq, unsigned int vector)
{
	int node = dev_to_node(&eq->dev->pdev->dev);
	unsigned int cpu;

	if (!vector || eq == eq->dev->fault_eq)
		return;
	cpu = cpumask_local_spread(vector - 1, node);
	irq_set_affinity_and_hint(eq->irq, cpumask_of(cpu));
}

static int refault_eq_init(struct refault_dev *dev, unsigned int vector)
{
	struct refault_eq *eq = &dev->eqs[vector];
	int ret;

	eq->dev = dev;
	eq->ring = dma_alloc_coherent(&dev->pdev->dev, REFAULT_EQ_BYTES,
				      &eq->dma, GFP_KERNEL);
	if (!eq->ring)
		return -ENOMEM;
	ret = refault_eq_create(eq, vector);
	if (ret)
		goto err_free;

	if (vector && eq == dev->fault_eq)
		snprintf(eq->name, sizeof(eq->name), "refault-fault@%s",
			 pci_name(dev->pdev));
	else if (vector)
		snprintf(eq->name, sizeof(eq->name), "refault-comp%u@%s",
			 vector - 1, pci_name(dev->pdev));
	else
		snprintf(eq->name, sizeof(eq->name), "refault-async@%s",
			 pci_name(dev->pdev));
	eq->irq = pci_irq_vector(dev->pdev, vector);
	ret = request_irq(eq->irq, refault_eq_interrupt, 0, eq->name, eq);
	if (ret)
		goto err_destroy;
	refault_spread_vector(eq, vector);
	refault_eq_arm(eq);
	return 0;

err_destroy:
	refault_cmd_destroy(dev, REFAULT_CMD_DESTROY_EQ, eq->eqn);
err_free:
	dma_free_coherent(&dev->pdev->dev, REFAULT_EQ_BYTES, eq->ring, eq->dma);
	return ret;
}

static void refault_eq_free(struct refault_eq *eq)
{
	struct refault_dev *dev = eq->dev;

	if (refault_cmd_destroy(dev, REFAULT_CMD_DESTROY_EQ, eq->eqn))
		refault_die(dev, "an event queue could not be destroyed");
	irq_update_affinity_hint(eq->irq, NULL);
	free_irq(eq->irq, eq);
	dma_free_coherent(&dev->pdev->dev, REFAULT_EQ_BYTES, eq->ring, eq->dma);
}

/*
 * Asks for one vector for asynchronous events, one for page faults, and one per
 * CPU for completions; gets as many of these as there are.
 */
static int refault_alloc_vectors(struct refault_dev *dev)
{
	unsigned int others = refault_has_odp(dev) ? 2 : 1;
	unsigned int most = min3(others + num_present_cpus(), REFAULT_MAX_EQS,
				 le32_to_cpu(dev->caps.max_eq));
	int vectors;

	vectors = pci_alloc_irq_vectors(dev->pdev, 1, max(most, 1U),
					PCI_IRQ_MSIX);
	if (vectors < 0)
		return dev_err_probe(&dev->pdev->dev, vectors,
				     "no MSI-X vectors\n");
	return vectors;
}

/* With two vectors, page faults share vector 0: completions get the second. */
static void refault_assign_vectors(struct refault_dev *dev, unsigned int vectors)
{
	bool own = refault_has_odp(dev) && vectors > 2;

	dev->fault_eq = &dev->eqs[own ? vectors - 1 : 0];
	dev->num_comp_vectors = max(vectors - own, 2U) - 1;
}

int refault_eqs_init(struct refault_dev *dev)
{
	int vectors, ret;

	vectors = refault_alloc_vectors(dev);
	if (vectors < 0)
		return vectors;
	dev->eqs = kcalloc(vectors, sizeof(*dev->eqs), GFP_KERNEL);
	if (!dev->eqs) {
		ret = -ENOMEM;
		goto err_vectors;
	}
	refault_assign_vectors(dev, vectors);
	for (dev->num_eqs = 0; dev->num_eqs < vectors; dev->num_eqs++) {
		ret = refault_eq_init(dev, dev->num_eqs);
		if (ret) {
			dev_err(&dev->pdev->dev,
				"cannot create event queue %u: %pe\n",
				dev->num_eqs, ERR_PTR(ret));
			refault_eqs_free(dev);
			return ret;
		}
	}
	return 0;

err_vectors:
	pci_free_irq_vectors(dev->pdev);
	return ret;
}

void refault_eqs_free(struct refault_dev *dev)
{
	while (dev->num_eqs)
		refault_eq_free(&dev->eqs[--dev->num_eqs]);
	kfree(dev->eqs);
	pci_free_irq_vectors(dev->pdev);
}

/* The event queue of a completion vector. The core has checked its range. */
struct refault_eq *refault_comp_eq(struct refault_dev *dev, u32 comp_vector)
{
	return &dev->eqs[min(comp_vector + 1, dev->num_eqs - 1)];
}
