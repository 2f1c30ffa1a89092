// SPDX-License-Identifier: GPL-2.0
/*
 * Protection domains.
 */

#include "refault.h"

int refault_alloc_pd(struct ib_pd *ibpd, struct ib_udata *udata)
{
	struct refault_ucontext *uctx = refault_udata_context(udata);
	struct refault_dev *dev = to_rdev(ibpd->device);
	struct refault_object_id context;
	int ret;

	if (!uctx)
		return refault_kernel_pd(dev, &to_rpd(ibpd)->id);
	ret = ib_no_udata_io(udata);
	if (ret)
		return ret;
	context = (struct refault_object_id){ .id = cpu_to_le32(uctx->bond->id) };
	return refault_cmd_create(dev, REFAULT_CMD_CREATE_PD, &context,
				  sizeof(context), &to_rpd(ibpd)->id);
}

int refault_dealloc_pd(struct ib_pd *ibpd, struct ib_udata *udata)
{
	return refault_cmd_destroy(to_rdev(ibpd->device),
				   REFAULT_CMD_DESTROY_PD, to_rpd(ibpd)->id);
}
