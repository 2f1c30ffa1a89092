// SPDX-License-Identifier: GPL-2.0
/*
 * Address handles. The address itself stays in the process' memory and goes
 * into every datagram's request; here it is only judged, once, so that a
 * process hears of a bad one when it makes it.
 */

#include "refault.h"

/* LIDs from here on are multicast, which the NIC does not do. */
#define REFAULT_FIRST_MULTICAST_LID 0xc000

int refault_create_user_ah(struct ib_ah *ibah, struct rdma_ah_init_attr *attr,
			   struct ib_udata *udata)
{
	const struct rdma_ah_attr *ah = attr->ah_attr;
	u32 dlid = rdma_ah_get_dlid(ah);
	int ret;

	/* The core has checked the port, and the index of the own GID. */
	ret = ib_no_udata_io(udata);
	if (ret)
		return ret;
	if (!dlid || dlid >= REFAULT_FIRST_MULTICAST_LID)
		return -EINVAL;
	if (rdma_ah_get_sl(ah) > 15)
		return -EINVAL;
	/* The port has one LID. */
	if (rdma_ah_get_path_bits(ah))
		return -EINVAL;
	return 0;
}

int refault_destroy_ah(struct ib_ah *ibah, u32 flags)
{
	return 0;
}
