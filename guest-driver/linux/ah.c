// SPDX-License-Identifier: GPL-2.0
/*
 * Address handles. They are no objects of the NIC: each datagram's work request
 * has the whole address. The provider keeps that of its handles; the kernel
 * validates it and, on RoCE, says what it was resolved to.
 */

#include "refault.h"

/* LIDs from here on are multicast, which the NIC does not support. */
#define REFAULT_FIRST_MULTICAST_LID 0xc000

static int refault_check_lid(const struct rdma_ah_attr *ah)
{
	u32 dlid = rdma_ah_get_dlid(ah);

	if (!dlid || dlid >= REFAULT_FIRST_MULTICAST_LID)
		return -EINVAL;
	/* The port has a single LID (LMC 0). */
	return rdma_ah_get_path_bits(ah) ? -EINVAL : 0;
}

/* The core has resolved the next hop's MAC address. */
static int refault_set_ah(struct refault_ah *ah, const struct rdma_ah_attr *attr)
{
	const struct ib_global_route *grh = rdma_ah_read_grh(attr);

	if (!(rdma_ah_get_ah_flags(attr) & IB_AH_GRH))
		return -EINVAL;
	memcpy(ah->dgid, grh->dgid.raw, sizeof(ah->dgid));
	memcpy(ah->dmac, attr->roce.dmac, sizeof(ah->dmac));
	ah->sgid_index = grh->sgid_index;
	ah->hop_limit = grh->hop_limit;
	ah->flow_label = grh->flow_label & IB_GRH_FLOWLABEL_MASK;
	ah->traffic_class = grh->traffic_class;
	ah->sl = rdma_ah_get_sl(attr);
	/* A handle is of no queue pair, so their numbers cannot count. */
	ah->source_port = rdma_flow_label_to_udp_sport(grh->flow_label);
	return 0;
}

static int refault_respond_ah(const struct refault_ah *ah,
			      struct ib_udata *udata)
{
	struct refault_uverbs_ah resp = {
		.sgid_index = ah->sgid_index,
		.hop_limit = ah->hop_limit,
		.source_port = cpu_to_le16(ah->source_port),
	};

	memcpy(resp.dmac, ah->dmac, sizeof(resp.dmac));
	return ib_respond_udata(udata, resp);
}

int refault_create_user_ah(struct ib_ah *ibah, struct rdma_ah_init_attr *attr,
			   struct ib_udata *udata)
{
	const struct rdma_ah_attr *ah = attr->ah_attr;
	int ret;

	/* The core has checked the port number and the SGID index. */
	ret = ib_is_udata_in_empty(udata);
	if (ret)
		return ret;
	if (rdma_ah_get_sl(ah) > 15)
		return -EINVAL;
	if (ah->type == RDMA_AH_ATTR_TYPE_ROCE)
		ret = refault_set_ah(to_rah(ibah), ah);
	else
		ret = refault_check_lid(ah);
	if (ret)
		return ret;
	return refault_respond_ah(to_rah(ibah), udata);
}

/* For the kernel, which has only RoCE ports. May not be allowed to sleep. */
int refault_create_ah(struct ib_ah *ibah, struct rdma_ah_init_attr *attr,
		      struct ib_udata *udata)
{
	return refault_set_ah(to_rah(ibah), attr->ah_attr);
}

int refault_destroy_ah(struct ib_ah *ibah, u32 flags)
{
	return 0;
}
