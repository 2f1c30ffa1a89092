// SPDX-License-Identifier: GPL-2.0
/*
 * PCI driver: probe and remove, and what makes the function lose its state:
 * function-level reset, error recovery, system sleep. For the latter the NIC is
 * taken out of service, and a new one into service when it is over. Processes
 * that had it open get IB_EVENT_DEVICE_FATAL, and may open it again.
 */

#include <linux/module.h>
#include <linux/pm.h>

#include "refault.h"

/* What stays while the function has a driver. Drvdata of the function. */
struct refault_function {
	void __iomem *regs;
	struct refault_dev *dev;	/* NULL while out of service. */
};

static int refault_map(struct pci_dev *pdev, struct refault_function *function)
{
	if (pci_resource_len(pdev, 0) < REFAULT_BAR0_SIZE ||
	    pci_resource_len(pdev, 2) < REFAULT_DOORBELL_PAGE_SIZE)
		return dev_err_probe(&pdev->dev, -ENODEV,
				     "BAR 0 or BAR 2 is too small\n");

	function->regs = pcim_iomap_region(pdev, 0, REFAULT_DRV_NAME);
	if (IS_ERR(function->regs))
		return PTR_ERR(function->regs);
	return pcim_request_region(pdev, 2, REFAULT_DRV_NAME);
}

static int refault_function_up(struct pci_dev *pdev)
{
	struct refault_function *function = pci_get_drvdata(pdev);
	struct refault_dev *dev = refault_up(pdev, function->regs);

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	function->dev = dev;
	return 0;
}

static void refault_function_down(struct pci_dev *pdev)
{
	struct refault_function *function = pci_get_drvdata(pdev);

	if (function->dev)
		refault_down(function->dev);
	function->dev = NULL;
}

static void refault_function_up_again(struct pci_dev *pdev)
{
	int ret = refault_function_up(pdev);

	if (ret)
		dev_err(&pdev->dev, "cannot be taken into service again: %pe\n",
			ERR_PTR(ret));
}

static int refault_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct refault_function *function;
	int ret;

	function = devm_kzalloc(&pdev->dev, sizeof(*function), GFP_KERNEL);
	if (!function)
		return -ENOMEM;
	pci_set_drvdata(pdev, function);
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	ret = refault_map(pdev, function);
	if (ret)
		return ret;

	/* The NIC has no addressing limit, and no limit on segment length. */
	ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	dma_set_max_seg_size(&pdev->dev, UINT_MAX);
	return refault_function_up(pdev);
}

/* Shutdown or kexec: DMA must not continue into the next kernel. */
static void refault_shutdown(struct pci_dev *pdev)
{
	struct refault_function *function = pci_get_drvdata(pdev);

	if (function->dev)
		refault_silence(function->dev);
}

/* A function-level reset destroys the NIC's objects, so we do it before. */
static void refault_reset_prepare(struct pci_dev *pdev)
{
	dev_info(&pdev->dev, "out of service: the function is being reset\n");
	refault_function_down(pdev);
}

static pci_ers_result_t refault_error_detected(struct pci_dev *pdev,
					       pci_channel_state_t state)
{
	struct refault_function *function = pci_get_drvdata(pdev);

	if (state == pci_channel_io_normal)
		return PCI_ERS_RESULT_CAN_RECOVER;
	/* The NIC cannot be asked any more. */
	if (function->dev)
		refault_die(function->dev, "PCI reports an error");
	refault_function_down(pdev);
	return state == pci_channel_io_frozen ? PCI_ERS_RESULT_NEED_RESET :
						PCI_ERS_RESULT_DISCONNECT;
}

static pci_ers_result_t refault_slot_reset(struct pci_dev *pdev)
{
	pci_restore_state(pdev);
	return PCI_ERS_RESULT_RECOVERED;
}

/* After a reset or an error that needed one; otherwise it is still up. */
static void refault_recovered(struct pci_dev *pdev)
{
	struct refault_function *function = pci_get_drvdata(pdev);

	if (!function->dev)
		refault_function_up_again(pdev);
}

static const struct pci_error_handlers refault_err_handlers = {
	.error_detected = refault_error_detected,
	.slot_reset = refault_slot_reset,
	.resume = refault_recovered,
	.reset_prepare = refault_reset_prepare,
	.reset_done = refault_recovered,
};

/*
 * The function loses its state in D3cold. Not ->suspend() and ->resume(): the
 * ib_device is a child, which cannot come and go in between.
 */
static int refault_pm_prepare(struct device *device)
{
	refault_function_down(to_pci_dev(device));
	return 0;
}

static void refault_pm_complete(struct device *device)
{
	refault_recovered(to_pci_dev(device));
}

static const struct dev_pm_ops refault_pm_ops = {
	.prepare = pm_sleep_ptr(refault_pm_prepare),
	.complete = pm_sleep_ptr(refault_pm_complete),
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
	.remove = refault_function_down,
	.shutdown = refault_shutdown,
	.err_handler = &refault_err_handlers,
	.driver.pm = &refault_pm_ops,
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
