// SPDX-License-Identifier: GPL-2.0
/*
 * An Ethernet port with RoCE v2: its attributes, which follow the netdev's, and
 * its GID table. The RDMA core keeps the table by the addresses of the netdev
 * and of what is stacked on it; the NIC takes what it sends from, and what it
 * receives for, from its copy.
 */

#include <rdma/ib_addr.h>
#include <rdma/ib_cache.h>
#include <rdma/ib_mad.h>

#include "refault.h"

static int refault_cmd_set_gid(const struct ib_gid_attr *attr,
			       struct refault_set_gid *cmd)
{
	struct refault_dev *dev = to_rdev(attr->device);
	int ret;

	cmd->index = cpu_to_le16(attr->index);
	ret = refault_cmd(dev, REFAULT_CMD_SET_GID, cmd, sizeof(*cmd), NULL, 0);
	/* A dead NIC uses none, and the core is to go on with its teardown. */
	return refault_is_dead(dev) ? 0 : ret;
}

int refault_add_gid(const struct ib_gid_attr *attr, void **context)
{
	struct refault_set_gid cmd = { .present = 1 };
	u16 vlan;
	int ret;

	ret = rdma_read_gid_l2_fields(attr, &vlan, cmd.mac);
	if (ret)
		return ret;
	/* Both use 0xffff for none. */
	cmd.vlan = cpu_to_le16(vlan);
	memcpy(cmd.gid, attr->gid.raw, sizeof(cmd.gid));
	return refault_cmd_set_gid(attr, &cmd);
}

int refault_del_gid(const struct ib_gid_attr *attr, void **context)
{
	struct refault_set_gid cmd = { .vlan = cpu_to_le16(REFAULT_GID_NO_VLAN) };

	return refault_cmd_set_gid(attr, &cmd);
}

static void refault_follow_netdev(struct ib_port_attr *attr,
				  struct net_device *netdev)
{
	enum ib_mtu mtu = iboe_get_mtu(READ_ONCE(netdev->mtu));

	/* Below the smallest path MTU no packet fits, and the core wants one. */
	attr->active_mtu = max_t(enum ib_mtu, mtu, IB_MTU_256);
	attr->state = ib_get_curr_port_state(netdev);
	if (attr->state == IB_PORT_ACTIVE)
		attr->phys_state = IB_PORT_PHYS_STATE_LINK_UP;
	else if (netif_running(netdev))
		attr->phys_state = IB_PORT_PHYS_STATE_POLLING;
}

/* Takes no rtnl_lock(): the speed of the netdev is known. */
int refault_roce_query_port(struct ib_device *ibdev, u32 port,
			    struct ib_port_attr *attr)
{
	const struct refault_device_caps *caps = &to_rdev(ibdev)->caps;
	struct net_device *netdev = ib_device_get_netdev(ibdev, port);

	/* The core has zeroed *attr. */
	attr->state = IB_PORT_DOWN;
	attr->phys_state = IB_PORT_PHYS_STATE_DISABLED;
	attr->max_mtu = IB_MTU_4096;
	attr->active_mtu = IB_MTU_1024;
	attr->gid_tbl_len = le16_to_cpu(caps->gids);
	attr->pkey_tbl_len = le16_to_cpu(caps->pkeys);
	attr->port_cap_flags = IB_PORT_CM_SUP;
	attr->ip_gids = true;
	attr->max_msg_sz = REFAULT_MAX_MESSAGE;
	attr->max_vl_num = 1;
	attr->active_width = IB_WIDTH_4X;
	attr->active_speed = IB_SPEED_EDR;
	if (netdev)
		refault_follow_netdev(attr, netdev);
	dev_put(netdev);
	return 0;
}

int refault_roce_get_port_immutable(struct ib_device *ibdev, u32 port,
				    struct ib_port_immutable *immutable)
{
	const struct refault_device_caps *caps = &to_rdev(ibdev)->caps;

	immutable->core_cap_flags = RDMA_CORE_PORT_IBA_ROCE_UDP_ENCAP;
	immutable->pkey_tbl_len = le16_to_cpu(caps->pkeys);
	immutable->gid_tbl_len = le16_to_cpu(caps->gids);
	immutable->max_mad_size = IB_MGMT_MAD_SIZE;
	return 0;
}

enum rdma_link_layer refault_roce_get_link_layer(struct ib_device *ibdev,
						 u32 port)
{
	return IB_LINK_LAYER_ETHERNET;
}

/* Called with the rtnl held, so that one call is over before the next. */
static int refault_netdev_changed(struct notifier_block *notifier,
				  unsigned long event, void *info)
{
	struct refault_dev *dev = container_of(notifier, struct refault_dev,
					       port_notifier);
	struct net_device *netdev = netdev_notifier_info_to_dev(info);
	struct ib_event port = {
		.device = &dev->ibdev,
		.element.port_num = 1,
	};
	enum ib_port_state state;

	if (netdev != dev->netdev ||
	    (event != NETDEV_UP && event != NETDEV_CHANGE && event != NETDEV_DOWN))
		return NOTIFY_DONE;
	state = ib_get_curr_port_state(netdev);
	if (state == dev->port_state)
		return NOTIFY_DONE;
	dev->port_state = state;
	port.event = state == IB_PORT_ACTIVE ? IB_EVENT_PORT_ACTIVE :
					       IB_EVENT_PORT_ERR;
	ib_dispatch_event(&port);
	return NOTIFY_DONE;
}

/* Tells the RDMA core when the port's state changes, where it does not look. */
void refault_port_watch(struct refault_dev *dev)
{
	if (REFAULT_CORE_WATCHES_PORT || !dev->netdev)
		return;
	dev->port_state = IB_PORT_DOWN;
	dev->port_notifier.notifier_call = refault_netdev_changed;
	if (register_netdevice_notifier(&dev->port_notifier))
		dev->port_notifier.notifier_call = NULL;
}

void refault_port_unwatch(struct refault_dev *dev)
{
	if (dev->port_notifier.notifier_call)
		unregister_netdevice_notifier(&dev->port_notifier);
}
