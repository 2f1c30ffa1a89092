// SPDX-License-Identifier: GPL-2.0
/*
 * PCI driver: probe and remove, reset, and taking a broken NIC out of service.
 */

#include <linux/delay.h>
#include <linux/module.h>

#include "refault.h"

/* Register reads before a timeout; cmd.c says why not seconds. */
#define REFAULT_AWAIT_LOOKS 50000

/**
 * refault_die() - Take the NIC out of service: no more DMA, no more commands.
 * @dev: the NIC
 * @why: the reason, for the log
 *
 * May be called from any context, and more than once. Destroying objects still
 * works afterwards: with bus mastering off the NIC cannot access their memory,
 * so they are just freed.
 */
void refault_die(struct refault_dev *dev, const char *why)
{
	struct ib_event event = {
		.device = &dev->ibdev,
		.element.port_num = 1,
		.event = IB_EVENT_DEVICE_FATAL,
	};

	if (test_and_set_bit(REFAULT_DEAD, &dev->state))
		return;

	pci_clear_master(dev->pdev);
	dev_err(&dev->pdev->dev,
		"%s; out of service until the driver is bound again\n", why);
	if (test_bit(REFAULT_REGISTERED, &dev->state))
		ib_dispatch_event(&event);
}

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

/* Destroys all of the NIC's objects and stops its DMA. */
static int refault_reset(struct refault_dev *dev)
{
	int ret;

	writel(REFAULT_CONTROL_RESET, dev->regs + REFAULT_REG_CONTROL);
	ret = refault_await(dev, REFAULT_REG_CONTROL, REFAULT_CONTROL_RESET, 0);
	if (ret)
		dev_err(&dev->pdev->dev, "reset did not complete (control %#x)\n",
			readl(dev->regs + REFAULT_REG_CONTROL));
	return ret;
}

static int refault_check_identity(struct refault_dev *dev)
{
	u32 magic = readl(dev->regs + REFAULT_REG_MAGIC);
	u32 version = readl(dev->regs + REFAULT_REG_VERSION);

	if (magic != REFAULT_MAGIC_VALUE)
		return dev_err_probe(&dev->pdev->dev, -ENODEV,
				     "not a refault NIC: magic %#x instead of %#x\n",
				     magic, REFAULT_MAGIC_VALUE);
	if (version != REFAULT_ABI_VERSION)
		return dev_err_probe(&dev->pdev->dev, -ENODEV,
				     "the NIC has ABI version %u, but this driver is for version %u\n",
				     version, REFAULT_ABI_VERSION);
	return 0;
}

static int refault_map(struct refault_dev *dev)
{
	struct pci_dev *pdev = dev->pdev;
	int ret;

	if (pci_resource_len(pdev, 0) < REFAULT_BAR0_SIZE ||
	    pci_resource_len(pdev, 2) < REFAULT_DOORBELL_PAGE_SIZE)
		return dev_err_probe(&pdev->dev, -ENODEV,
				     "BAR 0 or BAR 2 is too small\n");

	dev->regs = pcim_iomap_region(pdev, 0, REFAULT_DRV_NAME);
	if (IS_ERR(dev->regs))
		return PTR_ERR(dev->regs);
	ret = pcim_request_region(pdev, 2, REFAULT_DRV_NAME);
	if (ret)
		return ret;

	dev->doorbells = pci_resource_start(pdev, 2);
	dev->doorbell_pages = pci_resource_len(pdev, 2) /
			      REFAULT_DOORBELL_PAGE_SIZE;
	return 0;
}

/* Resets the NIC, starts its command lanes and event queues. */
static int refault_start(struct refault_dev *dev)
{
	int ret;

	pci_set_master(dev->pdev);
	ret = refault_reset(dev);
	if (ret)
		return ret;
	ret = refault_cmd_init(dev);
	if (ret)
		return ret;
	ret = refault_cmd(dev, REFAULT_CMD_QUERY_DEVICE, NULL, 0, &dev->caps,
			  sizeof(dev->caps));
	if (ret)
		goto err_cmd;
	ret = refault_faults_init(dev);
	if (ret)
		goto err_cmd;
	ret = refault_eqs_init(dev);
	if (ret)
		goto err_faults;
	return 0;

err_faults:
	refault_faults_free(dev);
err_cmd:
	refault_reset(dev);
	refault_cmd_free(dev);
	return ret;
}

static void refault_stop(struct refault_dev *dev)
{
	refault_eqs_free(dev);
	refault_faults_free(dev);
	if (!refault_is_dead(dev))
		refault_reset(dev);
	pci_clear_master(dev->pdev);
	refault_cmd_free(dev);
}

static struct refault_dev *refault_alloc(struct pci_dev *pdev)
{
	struct refault_dev *dev = ib_alloc_device(refault_dev, ibdev);

	if (!dev)
		return NULL;
	dev->pdev = pdev;
	mutex_init(&dev->lane0_lock);
	spin_lock_init(&dev->lane1_lock);
	xa_init(&dev->contexts);
	xa_init(&dev->cqs);
	xa_init(&dev->qps);
	xa_init(&dev->srqs);
	xa_init(&dev->mrs);
	pci_set_drvdata(pdev, dev);
	return dev;
}

static int refault_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct refault_dev *dev;
	int ret;

	dev = refault_alloc(pdev);
	if (!dev)
		return -ENOMEM;

	ret = pcim_enable_device(pdev);
	if (ret)
		goto err_dealloc;
	ret = refault_map(dev);
	if (ret)
		goto err_dealloc;
	ret = refault_check_identity(dev);
	if (ret)
		goto err_dealloc;

	/* The NIC has no addressing limit, and no limit on segment length. */
	ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (ret)
		goto err_dealloc;
	dma_set_max_seg_size(&pdev->dev, UINT_MAX);

	ret = refault_start(dev);
	if (ret)
		goto err_dealloc;
	ret = refault_device_register(dev);
	if (ret)
		goto err_stop;
	return 0;

err_stop:
	refault_stop(dev);
err_dealloc:
	ib_dealloc_device(&dev->ibdev);
	return ret;
}

static void refault_remove(struct pci_dev *pdev)
{
	struct refault_dev *dev = pci_get_drvdata(pdev);

	refault_stop_contexts(dev);
	refault_device_unregister(dev);
	refault_stop(dev);
	ib_dealloc_device(&dev->ibdev);
}

/* Shutdown or kexec: DMA must not continue into the next kernel. */
static void refault_shutdown(struct pci_dev *pdev)
{
	struct refault_dev *dev = pci_get_drvdata(pdev);

	if (refault_is_dead(dev))
		return;
	refault_reset(dev);
	set_bit(REFAULT_DEAD, &dev->state);
	pci_clear_master(pdev);
}

/* Stop the NIC before a function-level reset destroys objects in use. */
static void refault_reset_prepare(struct pci_dev *pdev)
{
	struct refault_dev *dev = pci_get_drvdata(pdev);

	if (!refault_is_dead(dev))
		refault_reset(dev);
	refault_die(dev, "the function is being reset");
}

static const struct pci_error_handlers refault_err_handlers = {
	.reset_prepare = refault_reset_prepare,
};

static const struct pci_device_id refault_pci_ids[] = {
	{ PCI_DEVICE(REFAULT_PCI_VENDOR_ID, REFAULT_PCI_DEVICE_ID) },
	{ }
};
MODULE_DEVICE_TABLE(pci, refault_pci_ids);

static struct pci_driver refault_pci_driver = {
	.name = REFAULT_DRV_NAME,
	.id_table = refault_pci_ids,
	.probe = refault_probe,
	.remove = refault_remove,
	.shutdown = refault_shutdown,
	.err_handler = &refault_err_handlers,
};

static int __init refault_init(void)
{
	int ret = refault_odp_mode_init();

	if (ret)
		return ret;
	return pci_register_driver(&refault_pci_driver);
}
module_init(refault_init);

static void __exit refault_exit(void)
{
	pci_unregister_driver(&refault_pci_driver);
}
module_exit(refault_exit);

MODULE_DESCRIPTION("RDMA driver of the refault NIC");
MODULE_LICENSE("GPL");
