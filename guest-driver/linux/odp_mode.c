// SPDX-License-Identifier: GPL-2.0
/*
 * The mode of an on-demand region: translated by the IOMMU through the process'
 * page table (PASID), or by the NIC through the region's own table. Access
 * flags of the registration choose; without them, the module parameter does.
 */

#include <linux/module.h>
#include <linux/sched.h>
#include <linux/string.h>

#include "odp.h"

enum refault_odp_mode {
	REFAULT_ODP_MODE_AUTO,
	REFAULT_ODP_MODE_PASID,
	REFAULT_ODP_MODE_TABLE,
};

static const char *const refault_odp_modes[] = {
	[REFAULT_ODP_MODE_AUTO] = "auto",
	[REFAULT_ODP_MODE_PASID] = "pasid",
	[REFAULT_ODP_MODE_TABLE] = "odp",
};

static char *odp_mode = "auto";
module_param(odp_mode, charp, 0444);
MODULE_PARM_DESC(odp_mode,
		 "Default translation of on-demand regions: \"pasid\" (by the IOMMU, in the process' address space), \"odp\" (by the NIC, in the region's own table), or \"auto\" (pasid where it works, else odp)");

static enum refault_odp_mode refault_odp_default;

/* Parses the parameter when the module is loaded. */
int refault_odp_mode_init(void)
{
	int mode = match_string(refault_odp_modes,
				ARRAY_SIZE(refault_odp_modes), odp_mode);

	if (mode < 0) {
		pr_err(REFAULT_DRV_NAME ": unknown odp_mode=%s: use auto, pasid or odp\n",
		       odp_mode);
		return -EINVAL;
	}
	refault_odp_default = mode;
	return 0;
}

/* Whether regions in the default mode can be translated by the NIC. */
bool refault_odp_by_table(const struct refault_dev *dev)
{
	return refault_has_odp(dev) &&
	       refault_odp_default != REFAULT_ODP_MODE_PASID;
}

/*
 * Whether PASID mode can serve the region: requests must use the process'
 * virtual addresses, as the IOMMU translates nothing else.
 */
static bool refault_pasid_serves(const struct refault_ucontext *uctx,
				 const struct refault_mr *mr, u64 address)
{
	return uctx->bond->sva && mr->start == address;
}

/**
 * refault_choose_mode() - Choose the mode of an on-demand region.
 * @dev: the NIC
 * @uctx: the context that registers it
 * @mr: the region; start and length are set
 * @address: the process' address of its first byte
 * @access: IB_ACCESS_*, and REFAULT_UVERBS_ACCESS_ODP or _PASID
 *
 * Return: REFAULT_MR_PASID, REFAULT_MR_ODP, or an error.
 */
int refault_choose_mode(struct refault_dev *dev,
			const struct refault_ucontext *uctx,
			const struct refault_mr *mr, u64 address, int access)
{
	int asked = access & (REFAULT_UVERBS_ACCESS_ODP |
			      REFAULT_UVERBS_ACCESS_PASID);
	enum refault_odp_mode mode = refault_odp_default;

	if (asked == (REFAULT_UVERBS_ACCESS_ODP | REFAULT_UVERBS_ACCESS_PASID))
		return -EINVAL;
	if (asked)
		mode = asked == REFAULT_UVERBS_ACCESS_ODP ?
			       REFAULT_ODP_MODE_TABLE : REFAULT_ODP_MODE_PASID;
	if (mode == REFAULT_ODP_MODE_AUTO)
		mode = refault_pasid_serves(uctx, mr, address) ?
			       REFAULT_ODP_MODE_PASID : REFAULT_ODP_MODE_TABLE;
	if (mode == REFAULT_ODP_MODE_TABLE)
		return refault_has_odp(dev) ? REFAULT_MR_ODP : -EOPNOTSUPP;

	if (!uctx->bond->sva && !test_and_set_bit(REFAULT_PASID_REFUSED, &dev->state))
		dev_err(&dev->pdev->dev,
			"on-demand regions in PASID mode are refused: the context of %s[%d] has no PASID\n",
			current->comm, task_tgid_nr(current));
	return refault_pasid_serves(uctx, mr, address) ? REFAULT_MR_PASID :
							 -EOPNOTSUPP;
}
