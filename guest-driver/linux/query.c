// SPDX-License-Identifier: GPL-2.0
/*
 * Attributes of the device, and of an InfiniBand port: it has a constant LID and
 * GID, and neither a subnet manager nor a netdev. roce.c has the other kind.
 */

#include "odp.h"

#define REFAULT_PKEY 0xffff
#define REFAULT_GID_PREFIX 0xfe80000000000000ULL
/* Completion timestamps count nanoseconds. */
#define REFAULT_CLOCK_KHZ 1000000

/*
 * Regions may be registered if the NIC can translate any. But programs are told
 * so only if a region that asks for no mode gets one that works here.
 */
static void refault_query_odp(struct refault_dev *dev,
			      struct ib_device_attr *attr)
{
	if (!refault_has_odp(dev))
		return;
	attr->kernel_cap_flags |= IBK_ON_DEMAND_PAGING;
	if (!refault_odp_by_table(dev) &&
	    !(REFAULT_HAVE_SVA && refault_has_pasid(dev)))
		return;
	attr->odp_caps.general_caps = IB_ODP_SUPPORT | IB_ODP_SUPPORT_IMPLICIT;
	attr->odp_caps.per_transport_caps.rc_odp_caps =
		IB_ODP_SUPPORT_SEND | IB_ODP_SUPPORT_RECV |
		IB_ODP_SUPPORT_WRITE | IB_ODP_SUPPORT_READ |
		IB_ODP_SUPPORT_ATOMIC | IB_ODP_SUPPORT_SRQ_RECV |
		IB_ODP_SUPPORT_FLUSH | IB_ODP_SUPPORT_ATOMIC_WRITE;
	attr->odp_caps.per_transport_caps.ud_odp_caps =
		IB_ODP_SUPPORT_SEND | IB_ODP_SUPPORT_RECV |
		IB_ODP_SUPPORT_SRQ_RECV;
}

static void refault_query_srqs(struct refault_dev *dev,
			       struct ib_device_attr *attr)
{
	attr->max_srq = le32_to_cpu(dev->caps.max_srq);
	if (!attr->max_srq)
		return;
	attr->max_srq_wr = BIT(REFAULT_MAX_LOG_WQES);
	attr->max_srq_sge = REFAULT_MAX_SGE;
}

/* Completion queues, their timestamps and event moderation. */
static void refault_query_cqs(struct refault_dev *dev,
			      struct ib_device_attr *attr)
{
	attr->max_cq = le32_to_cpu(dev->caps.max_cq);
	attr->max_cqe = BIT(REFAULT_MAX_LOG_CQES);
	attr->timestamp_mask = U64_MAX;
	attr->hca_core_clock = REFAULT_CLOCK_KHZ;
	attr->cq_caps.max_cq_moderation_count = U16_MAX;
	attr->cq_caps.max_cq_moderation_period = U16_MAX;
}

/* What kernel ULPs need to register memory by requests. */
static void refault_query_fast(struct refault_dev *dev,
			       struct ib_device_attr *attr)
{
	if (!refault_has_roce(dev))
		return;
	attr->device_cap_flags |= IB_DEVICE_MEM_MGT_EXTENSIONS;
	attr->max_fast_reg_page_list_len = REFAULT_MAX_FAST_PAGES;
}

static u64 refault_device_cap_flags(u32 features)
{
	u64 flags = IB_DEVICE_RC_RNR_NAK_GEN | IB_DEVICE_SYS_IMAGE_GUID |
		    IB_DEVICE_CURR_QP_STATE_MOD | IB_DEVICE_FLUSH_GLOBAL |
		    IB_DEVICE_ATOMIC_WRITE;

	if (features & REFAULT_CAP_FLUSH_PERSISTENT)
		flags |= IB_DEVICE_FLUSH_PERSISTENT;
	return flags;
}

int refault_query_device(struct ib_device *ibdev, struct ib_device_attr *attr,
			 struct ib_udata *udata)
{
	struct refault_dev *dev = to_rdev(ibdev);
	const struct refault_device_caps *caps = &dev->caps;
	u32 features = le32_to_cpu(caps->features);
	u32 rd_atomic = le32_to_cpu(caps->max_rd_atomic);
	int ret;

	ret = ib_no_udata_io(udata);
	if (ret)
		return ret;

	memset(attr, 0, sizeof(*attr));
	attr->fw_ver = le64_to_cpu(caps->version);
	attr->sys_image_guid = ibdev->node_guid;
	attr->vendor_id = dev->pdev->vendor;
	attr->vendor_part_id = dev->pdev->device;
	attr->hw_ver = dev->pdev->revision;
	attr->page_size_cap = SZ_4K | SZ_2M;
	attr->device_cap_flags = refault_device_cap_flags(features);
	attr->max_mr_size = le64_to_cpu(caps->max_mr_size);
	attr->max_mr = le32_to_cpu(caps->max_mr);
	attr->max_pd = le32_to_cpu(caps->max_pd);
	attr->max_qp = le32_to_cpu(caps->max_qp);
	attr->max_qp_wr = BIT(REFAULT_MAX_LOG_WQES);
	attr->max_send_sge = REFAULT_MAX_SGE;
	attr->max_recv_sge = REFAULT_MAX_SGE;
	attr->max_sge_rd = REFAULT_MAX_SGE;
	attr->max_qp_rd_atom = rd_atomic;
	attr->max_qp_init_rd_atom = rd_atomic;
	attr->max_res_rd_atom = min_t(u64, (u64)rd_atomic * attr->max_qp,
				      INT_MAX);
	attr->atomic_cap = features & REFAULT_CAP_ATOMIC_GLOBAL ?
				   IB_ATOMIC_GLOB : IB_ATOMIC_HCA;
	attr->max_pkeys = le16_to_cpu(caps->pkeys);
	/* Address handles use no resources of the NIC. */
	attr->max_ah = INT_MAX;
	refault_query_srqs(dev, attr);
	refault_query_cqs(dev, attr);
	refault_query_fast(dev, attr);
	refault_query_odp(dev, attr);
	return 0;
}

int refault_query_port(struct ib_device *ibdev, u32 port,
		       struct ib_port_attr *attr)
{
	const struct refault_device_caps *caps = &to_rdev(ibdev)->caps;

	/* The core has zeroed *attr. */
	attr->state = IB_PORT_ACTIVE;
	attr->phys_state = IB_PORT_PHYS_STATE_LINK_UP;
	attr->max_mtu = IB_MTU_4096;
	attr->active_mtu = IB_MTU_4096;
	attr->gid_tbl_len = le16_to_cpu(caps->gids);
	attr->pkey_tbl_len = le16_to_cpu(caps->pkeys);
	attr->lid = le16_to_cpu(caps->lid);
	attr->max_msg_sz = REFAULT_MAX_MESSAGE;
	attr->max_vl_num = 1;
	attr->active_width = IB_WIDTH_4X;
	attr->active_speed = IB_SPEED_EDR;
	return 0;
}

int refault_query_pkey(struct ib_device *ibdev, u32 port, u16 index, u16 *pkey)
{
	if (index >= le16_to_cpu(to_rdev(ibdev)->caps.pkeys))
		return -EINVAL;
	*pkey = REFAULT_PKEY;
	return 0;
}

int refault_query_gid(struct ib_device *ibdev, u32 port, int index,
		      union ib_gid *gid)
{
	if (index < 0 || index >= le16_to_cpu(to_rdev(ibdev)->caps.gids))
		return -EINVAL;
	memset(gid, 0, sizeof(*gid));
	if (index == 0) {
		gid->global.subnet_prefix = cpu_to_be64(REFAULT_GID_PREFIX);
		gid->global.interface_id = ibdev->node_guid;
	}
	return 0;
}

int refault_get_port_immutable(struct ib_device *ibdev, u32 port,
			       struct ib_port_immutable *immutable)
{
	const struct refault_device_caps *caps = &to_rdev(ibdev)->caps;

	immutable->core_cap_flags = RDMA_CORE_CAP_PROT_IB;
	immutable->pkey_tbl_len = le16_to_cpu(caps->pkeys);
	immutable->gid_tbl_len = le16_to_cpu(caps->gids);
	return 0;
}

enum rdma_link_layer refault_get_link_layer(struct ib_device *ibdev, u32 port)
{
	return IB_LINK_LAYER_INFINIBAND;
}

void refault_get_dev_fw_str(struct ib_device *ibdev, char *str)
{
	snprintf(str, IB_FW_VERSION_NAME_MAX, "%llu",
		 le64_to_cpu(to_rdev(ibdev)->caps.version));
}
