// SPDX-License-Identifier: GPL-2.0
/*
 * Taking the NIC into service and out of it: all that lies between a function
 * whose registers are mapped, and a registered ib_device or network interface.
 */

#include "refault.h"

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

/* Starts the command lanes, learns what the NIC has, starts event queues. */
static int refault_start(struct refault_dev *dev)
{
	int ret;

	/* A former driver may have left it running, e.g. one that crashed. */
	ret = refault_reset(dev);
	if (ret)
		return ret;
	pci_set_master(dev->pdev);
	ret = refault_cmd_init(dev);
	if (ret)
		goto err_cmd;
	ret = refault_cmd(dev, REFAULT_CMD_QUERY_DEVICE, NULL, 0, &dev->caps,
			  sizeof(dev->caps));
	if (ret)
		goto err_cmd;
	ret = refault_bonds_init(dev);
	if (ret)
		goto err_cmd;
	ret = refault_faults_init(dev);
	if (ret)
		goto err_bonds;
	ret = refault_eqs_init(dev);
	if (ret)
		goto err_faults;
	ret = refault_kernel_init(dev);
	if (ret)
		goto err_eqs;
	return 0;

err_eqs:
	refault_eqs_free(dev);
err_faults:
	refault_faults_free(dev);
err_bonds:
	refault_bonds_free(dev);
err_cmd:
	refault_silence(dev);
	refault_cmd_free(dev);
	return ret;
}

static void refault_stop(struct refault_dev *dev)
{
	refault_kernel_free(dev);
	refault_bonds_free(dev);
	refault_silence(dev);
	refault_eqs_free(dev);
	refault_faults_free(dev);
	refault_cmd_free(dev);
}

static struct refault_dev *refault_alloc(struct pci_dev *pdev,
					 void __iomem *regs)
{
	struct refault_dev *dev = ib_alloc_device(refault_dev, ibdev);

	if (!dev)
		return NULL;
	dev->pdev = pdev;
	dev->regs = regs;
	dev->doorbells = pci_resource_start(pdev, 2);
	dev->doorbell_pages = pci_resource_len(pdev, 2) /
			      REFAULT_DOORBELL_PAGE_SIZE;
	refault_kernel_alloc(dev);
	mutex_init(&dev->lane0_lock);
	spin_lock_init(&dev->lane1_lock);
	spin_lock_init(&dev->silence_lock);
	spin_lock_init(&dev->netdev_lock);
	init_waitqueue_head(&dev->leave_wait);
	xa_init(&dev->contexts);
	xa_init(&dev->cqs);
	xa_init(&dev->qps);
	xa_init(&dev->srqs);
	xa_init(&dev->mrs);
	return dev;
}

static void refault_dealloc(struct refault_dev *dev)
{
	/* Queued by refault_die(), also if nothing had been started. */
	cancel_work_sync(&dev->dead_work);
	ib_dealloc_device(&dev->ibdev);
}

/**
 * refault_up() - Take the NIC into service.
 * @pdev: its function, enabled
 * @regs: BAR 0
 *
 * Return: the NIC, or an errno as a pointer.
 */
struct refault_dev *refault_up(struct pci_dev *pdev, void __iomem *regs)
{
	struct refault_dev *dev = refault_alloc(pdev, regs);
	int ret;

	if (!dev)
		return ERR_PTR(-ENOMEM);
	ret = refault_check_identity(dev);
	if (ret)
		goto err_dealloc;
	ret = refault_start(dev);
	if (ret)
		goto err_dealloc;
	ret = refault_netdev_register(dev);
	if (ret)
		goto err_stop;
	ret = refault_device_register(dev);
	if (ret)
		goto err_netdev;
	return dev;

err_netdev:
	refault_netdev_unregister(dev);
err_stop:
	refault_stop(dev);
err_dealloc:
	refault_dealloc(dev);
	return ERR_PTR(ret);
}

/**
 * refault_down() - Take the NIC out of service and free it.
 * @dev: the NIC
 *
 * Processes that have it open keep a device file whose calls fail. Waits until
 * the kernel has handled all of their page faults.
 */
void refault_down(struct refault_dev *dev)
{
	refault_stop_contexts(dev);
	refault_device_unregister(dev);
	refault_netdev_unregister(dev);
	refault_stop(dev);
	refault_dealloc(dev);
}
