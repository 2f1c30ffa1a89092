// SPDX-License-Identifier: GPL-2.0
/*
 * Resetting the NIC, and taking a broken one out of service.
 */

#include <linux/delay.h>

#include "refault.h"

/* Register reads before a timeout; cmd.c says why not seconds. */
#define REFAULT_AWAIT_LOOKS 50000
/* The same where sleeping is not allowed. A reset usually takes one read. */
#define REFAULT_ATOMIC_LOOKS 1000

/**
 * refault_await() - Wait until bits of a register have a value. Sleeps.
 * @dev: the NIC
 * @offset: REFAULT_REG_*
 * @mask: the bits to compare
 * @value: the value to wait for
 *
 * Return: 0 or -ETIMEDOUT.
 */
int refault_await(struct refault_dev *dev, unsigned int offset, u32 mask,
		  u32 value)
{
	unsigned int looks;

	for (looks = 0; looks < REFAULT_AWAIT_LOOKS; looks++) {
		if ((readl(dev->regs + offset) & mask) == value)
			return 0;
		usleep_range(50, 200);
	}
	return -ETIMEDOUT;
}

/* Destroys all of the NIC's objects and stops its DMA. Returns 0 or an errno. */
int refault_reset(struct refault_dev *dev)
{
	int ret;

	writel(REFAULT_CONTROL_RESET, dev->regs + REFAULT_REG_CONTROL);
	ret = refault_await(dev, REFAULT_REG_CONTROL, REFAULT_CONTROL_RESET, 0);
	if (ret)
		dev_err(&dev->pdev->dev, "reset did not complete (control %#x)\n",
			readl(dev->regs + REFAULT_REG_CONTROL));
	return ret;
}

/*
 * Ends all DMA. Bus mastering off keeps the NIC from starting any; the reset
 * waits for what it has started. A NIC that does not answer, because it is gone
 * or its registers are switched off, is left with the former.
 */
static void refault_end_dma(struct refault_dev *dev)
{
	void __iomem *control = dev->regs + REFAULT_REG_CONTROL;
	unsigned int looks;

	pci_clear_master(dev->pdev);
	writel(REFAULT_CONTROL_RESET, control);
	for (looks = 0; looks < REFAULT_ATOMIC_LOOKS; looks++) {
		if (!(readl(control) & REFAULT_CONTROL_RESET))
			return;
		cpu_relax();
	}
}

/**
 * refault_silence() - Have the NIC do no more DMA and get no more commands.
 * @dev: the NIC
 *
 * On return no access to memory is in flight, even if another caller came
 * first: as soon as others see the NIC dead, they free memory that it was using. May
 * be called from any context.
 *
 * Return: whether this call did it.
 */
bool refault_silence(struct refault_dev *dev)
{
	unsigned long flags;
	bool first;

	spin_lock_irqsave(&dev->silence_lock, flags);
	first = !refault_is_dead(dev);
	if (first) {
		refault_end_dma(dev);
		/* The NIC is silent before anybody sees that it is dead. */
		smp_mb__before_atomic();
		set_bit(REFAULT_DEAD, &dev->state);
	}
	spin_unlock_irqrestore(&dev->silence_lock, flags);
	return first;
}

/**
 * refault_die() - Take the NIC out of service, because something is broken.
 * @dev: the NIC
 * @why: the reason, for the log
 *
 * May be called from any context, and more than once. Destroying objects still
 * works afterwards: the NIC cannot access their memory, so they are just freed.
 */
void refault_die(struct refault_dev *dev, const char *why)
{
	struct ib_event event = {
		.device = &dev->ibdev,
		.element.port_num = 1,
		.event = IB_EVENT_DEVICE_FATAL,
	};

	if (!refault_silence(dev))
		return;
	dev_err(&dev->pdev->dev,
		"%s; out of service until it is reset or bound again\n", why);
	if (test_bit(REFAULT_REGISTERED, &dev->state))
		ib_dispatch_event(&event);
	refault_netdev_dead(dev);
	schedule_work(&dev->dead_work);
}
