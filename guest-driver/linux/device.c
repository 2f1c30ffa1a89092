// SPDX-License-Identifier: GPL-2.0
/*
 * The ib_device: its operations, and its registration with the RDMA core.
 *
 * With an InfiniBand port the device is for user space only: it has no kernel
 * verbs, so clients such as ib_mad and ib_cm do not attach, and it needs no
 * netdev. With RoCE it has all of that.
 */

#include "refault.h"

static const struct ib_device_ops refault_infiniband_ops = {
	.get_link_layer = refault_get_link_layer,
	.get_port_immutable = refault_get_port_immutable,
	.query_gid = refault_query_gid,
	.query_port = refault_query_port,
};

static const struct ib_device_ops refault_roce_ops = {
	.add_gid = refault_add_gid,
	.alloc_hw_port_stats = refault_alloc_hw_port_stats,
	.alloc_mr = refault_alloc_mr,
	.create_ah = refault_create_ah,
	.del_gid = refault_del_gid,
	.get_dma_mr = refault_get_dma_mr,
	.get_hw_stats = refault_get_hw_stats,
	.get_link_layer = refault_roce_get_link_layer,
	.get_port_immutable = refault_roce_get_port_immutable,
	.map_mr_sg = refault_map_mr_sg,
	.poll_cq = refault_poll_cq,
	.post_recv = refault_post_recv,
	.post_send = refault_post_send,
	.query_port = refault_roce_query_port,
	.req_notify_cq = refault_req_notify_cq,
};

static const struct ib_device_ops refault_dev_ops = {
	.owner = THIS_MODULE,
	.driver_id = RDMA_DRIVER_UNKNOWN,
	.uverbs_abi_ver = REFAULT_UVERBS_ABI_VERSION,
#ifdef REFAULT_HAVE_ROBUST_UDATA
	/*
	 * Every verb checks its udata, but for those that destroy: user space
	 * cannot pass any to them. They get that of the creation if the core
	 * undoes one, and must not fail then.
	 */
	.uverbs_robust_udata = 1,
#endif

	.advise_mr = refault_advise_mr,
	.alloc_pd = refault_alloc_pd,
	.alloc_ucontext = refault_alloc_ucontext,
	.create_cq = refault_create_cq,
	.create_qp = refault_create_qp,
	.create_srq = refault_create_srq,
	.create_user_ah = refault_create_user_ah,
	.dealloc_pd = refault_dealloc_pd,
	.dealloc_ucontext = refault_dealloc_ucontext,
	.dereg_mr = refault_dereg_mr,
	.destroy_ah = refault_destroy_ah,
	.destroy_cq = refault_destroy_cq,
	.destroy_qp = refault_destroy_qp,
	.destroy_srq = refault_destroy_srq,
	.device_group = &refault_attr_group,
	.disassociate_ucontext = refault_disassociate_ucontext,
	.fill_res_mr_entry = refault_fill_res_mr_entry,
	.fill_stat_mr_entry = refault_fill_stat_mr_entry,
	.get_dev_fw_str = refault_get_dev_fw_str,
	.mmap = refault_mmap,
	.mmap_free = refault_mmap_free,
	.modify_cq = refault_modify_cq,
	.modify_qp = refault_modify_qp,
	.modify_srq = refault_modify_srq,
	.query_device = refault_query_device,
	.query_pkey = refault_query_pkey,
	.query_qp = refault_query_qp,
	.query_srq = refault_query_srq,
	.reg_user_mr = refault_reg_user_mr_op,
#ifdef REFAULT_HAVE_UFILE_CLEANUP
	.ufile_hw_cleanup = refault_ufile_hw_cleanup,
#endif

	INIT_RDMA_OBJ_SIZE(ib_ah, refault_ah, ibah),
	INIT_RDMA_OBJ_SIZE(ib_cq, refault_cq, ibcq),
	INIT_RDMA_OBJ_SIZE(ib_pd, refault_pd, ibpd),
	INIT_RDMA_OBJ_SIZE(ib_qp, refault_qp, ibqp),
	INIT_RDMA_OBJ_SIZE(ib_srq, refault_srq, ibsrq),
	INIT_RDMA_OBJ_SIZE(ib_ucontext, refault_ucontext, ibucontext),
};

int refault_device_register(struct refault_dev *dev)
{
	struct ib_device *ibdev = &dev->ibdev;
	int ret;

	/* An Ethernet port without RoCE has its network interface alone. */
	if (refault_has_ethernet(dev) && !refault_has_roce(dev))
		return 0;
	ibdev->node_type = RDMA_NODE_IB_CA;
	ibdev->node_guid = cpu_to_be64(le64_to_cpu(dev->caps.node_guid));
	ibdev->phys_port_cnt = 1;
	ibdev->dev.parent = &dev->pdev->dev;
	ibdev->num_comp_vectors = dev->num_comp_vectors;
	strscpy(ibdev->node_desc, "refault", sizeof(ibdev->node_desc));
	ib_set_device_ops(ibdev, &refault_dev_ops);
	ib_set_device_ops(ibdev, refault_has_roce(dev) ? &refault_roce_ops :
							 &refault_infiniband_ops);

	ret = dev->netdev ? ib_device_set_netdev(ibdev, dev->netdev, 1) : 0;
	if (!ret)
		ret = ib_register_device(ibdev, "refault_%d", &dev->pdev->dev);
	if (ret) {
		/* Else unregistering the netdev would wait for it. */
		ib_device_set_netdev(ibdev, NULL, 1);
		return dev_err_probe(&dev->pdev->dev, ret,
				     "cannot register with the RDMA core\n");
	}
	set_bit(REFAULT_REGISTERED, &dev->state);
	refault_port_watch(dev);
	return 0;
}

void refault_device_unregister(struct refault_dev *dev)
{
	if (!test_and_clear_bit(REFAULT_REGISTERED, &dev->state))
		return;
	refault_port_unwatch(dev);
	ib_unregister_device(&dev->ibdev);
}
