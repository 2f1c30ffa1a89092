// SPDX-License-Identifier: GPL-2.0
/*
 * Address handles. The provider keeps the address and copies it into each
 * datagram's work request. The kernel only validates it, so that a bad address
 * fails when the handle is created.
 */

#include "refault.h"

/* LIDs from here on are multicast, which the NIC does not support. */
#define REFAULT_FIRST_MULTICAST_LID 0xc000

int refault_create_user_ah(struct ib_ah *ibah, struct rdma_ah_init_attr *attr,
			   struct ib_udata *udata)
{
	const struct rdma_ah_attr *ah = attr->ah_attr;
	u32 dlid = rdma_ah_get_dlid(ah);
	int ret;

	/* The core has checked the port number and the SGID index. */
	ret = ib_no_udata_io(udata);
	if (ret)
		return ret;
	if (!dlid || dlid >= REFAULT_FIRST_MULTICAST_LID)
		return -EINVAL;
	if (rdma_ah_get_sl(ah) > 15)
		return -EINVAL;
	/* The port has a single LID (LMC 0). */
	if (rdma_ah_get_path_bits(ah))
		return -EINVAL;
	return 0;
}

int refault_destroy_ah(struct ib_ah *ibah, u32 flags)
{
	return 0;
}
