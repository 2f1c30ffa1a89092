// SPDX-License-Identifier: GPL-2.0
/*
 * The network interface of an Ethernet port: its registration and its settings.
 * Frames that are no RoCE go through it, and the RDMA core follows its state and
 * its addresses. It has no offloads, and one queue in each direction.
 */

#include <linux/ethtool.h>

#include "netdev.h"

/* Tells the NIC how the port is to be. Holding port_lock. */
static int refault_cmd_set_port(struct refault_netdev *nd, bool up)
{
	bool promiscuous = READ_ONCE(nd->netdev->flags) & IFF_PROMISC;
	u32 flags = (up ? REFAULT_PORT_UP : 0) |
		    (promiscuous ? REFAULT_PORT_PROMISCUOUS : 0);
	struct refault_set_port cmd = {
		.flags = cpu_to_le32(flags),
		.eqn = cpu_to_le32(refault_async_eq(nd->dev)->eqn),
	};

	memcpy(cmd.mac, nd->mac, sizeof(cmd.mac));
	return refault_cmd(nd->dev, REFAULT_CMD_SET_PORT, &cmd, sizeof(cmd),
			   NULL, 0);
}

static int refault_port_up(struct refault_netdev *nd, bool up)
{
	int ret;

	mutex_lock(&nd->port_lock);
	ret = refault_cmd_set_port(nd, up);
	nd->up = up && !ret;
	mutex_unlock(&nd->port_lock);
	return ret;
}

static int refault_open(struct net_device *netdev)
{
	struct refault_netdev *nd = netdev_priv(netdev);
	int ret;

	ret = refault_queues_start(nd);
	if (ret)
		return ret;
	ret = refault_port_up(nd, true);
	if (ret) {
		refault_queues_stop(nd);
		return ret;
	}
	refault_carrier_read(nd);
	napi_enable(&nd->napi);
	netif_start_queue(netdev);
	/* Polls once, and arms the CQ then. */
	local_bh_disable();
	napi_schedule(&nd->napi);
	local_bh_enable();
	return 0;
}

static int refault_close(struct net_device *netdev)
{
	struct refault_netdev *nd = netdev_priv(netdev);

	netif_tx_disable(netdev);
	/* It fails only if the NIC is dead, which is as good. */
	refault_port_up(nd, false);
	refault_carrier_lose(nd);
	napi_disable(&nd->napi);
	refault_queues_stop(nd);
	return 0;
}

static int refault_set_mac(struct net_device *netdev, void *address)
{
	struct refault_netdev *nd = netdev_priv(netdev);
	struct sockaddr *mac = address;
	u8 before[ETH_ALEN];
	int ret;

	ret = eth_prepare_mac_addr_change(netdev, address);
	if (ret)
		return ret;
	mutex_lock(&nd->port_lock);
	ether_addr_copy(before, nd->mac);
	ether_addr_copy(nd->mac, mac->sa_data);
	ret = refault_cmd_set_port(nd, nd->up);
	if (ret)
		ether_addr_copy(nd->mac, before);
	mutex_unlock(&nd->port_lock);
	if (!ret)
		eth_commit_mac_addr_change(netdev, address);
	return ret;
}

static int refault_change_mtu(struct net_device *netdev, int mtu)
{
	WRITE_ONCE(netdev->mtu, mtu);
	return 0;
}

static void refault_rx_mode_work(struct work_struct *work)
{
	struct refault_netdev *nd = container_of(work, struct refault_netdev,
						 rx_mode_work);

	mutex_lock(&nd->port_lock);
	if (nd->up)
		refault_cmd_set_port(nd, true);
	mutex_unlock(&nd->port_lock);
}

/* Called with a spinlock held, where no command can be given. */
static void refault_set_rx_mode(struct net_device *netdev)
{
	struct refault_netdev *nd = netdev_priv(netdev);

	schedule_work(&nd->rx_mode_work);
}

static const struct net_device_ops refault_netdev_ops = {
	.ndo_open = refault_open,
	.ndo_stop = refault_close,
	.ndo_start_xmit = refault_xmit,
	.ndo_set_mac_address = refault_set_mac,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_change_mtu = refault_change_mtu,
	.ndo_set_rx_mode = refault_set_rx_mode,
	.ndo_get_stats64 = dev_get_tstats64,
};

/* As fast as the attributes of the RDMA port say. */
static int refault_get_link_ksettings(struct net_device *netdev,
				      struct ethtool_link_ksettings *settings)
{
	settings->base.speed = SPEED_100000;
	settings->base.duplex = DUPLEX_FULL;
	settings->base.port = PORT_OTHER;
	settings->base.autoneg = AUTONEG_DISABLE;
	return 0;
}

/* The core takes the driver's name from the parent. */
static const struct ethtool_ops refault_ethtool_ops = {
	.get_link = ethtool_op_get_link,
	.get_link_ksettings = refault_get_link_ksettings,
};

static void refault_netdev_setup(struct net_device *netdev,
				 struct refault_dev *dev)
{
	struct refault_netdev *nd = netdev_priv(netdev);

	SET_NETDEV_DEV(netdev, &dev->pdev->dev);
	netdev->netdev_ops = &refault_netdev_ops;
	netdev->ethtool_ops = &refault_ethtool_ops;
	netdev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	netdev->priv_flags |= IFF_LIVE_ADDR_CHANGE;
	netdev->min_mtu = ETH_MIN_MTU;
	netdev->max_mtu = nd->max_frame - ETH_HLEN - VLAN_HLEN;
	netdev->mtu = min_t(u32, ETH_DATA_LEN, netdev->max_mtu);
	eth_hw_addr_set(netdev, nd->mac);
	netif_napi_add(netdev, &nd->napi, refault_napi_poll);
	/* Known when it is open. */
	netif_carrier_off(netdev);
}

static int refault_netdev_check(struct refault_dev *dev)
{
	if (le16_to_cpu(dev->caps.max_frame) < ETH_FRAME_LEN + VLAN_HLEN ||
	    !is_valid_ether_addr(dev->caps.mac))
		return dev_err_probe(&dev->pdev->dev, -EIO,
				     "longest frame %u bytes, MAC address %pM\n",
				     le16_to_cpu(dev->caps.max_frame),
				     dev->caps.mac);
	return 0;
}

static void refault_netdev_publish(struct refault_dev *dev,
				   struct net_device *netdev)
{
	spin_lock_irq(&dev->netdev_lock);
	dev->netdev = netdev;
	spin_unlock_irq(&dev->netdev_lock);
}

/**
 * refault_netdev_register() - Make the network interface.
 * @dev: the NIC; without an Ethernet port nothing is done
 *
 * Return: 0 or an errno.
 */
int refault_netdev_register(struct refault_dev *dev)
{
	struct net_device *netdev;
	struct refault_netdev *nd;
	int ret;

	if (!refault_has_ethernet(dev))
		return 0;
	ret = refault_netdev_check(dev);
	if (ret)
		return ret;
	netdev = alloc_etherdev(sizeof(*nd));
	if (!netdev)
		return -ENOMEM;
	nd = netdev_priv(netdev);
	nd->dev = dev;
	nd->netdev = netdev;
	nd->max_frame = le16_to_cpu(dev->caps.max_frame);
	ether_addr_copy(nd->mac, dev->caps.mac);
	mutex_init(&nd->port_lock);
	INIT_WORK(&nd->rx_mode_work, refault_rx_mode_work);
	ret = refault_queues_make(nd);
	if (ret)
		goto err_free;
	refault_netdev_setup(netdev, dev);
	refault_netdev_publish(dev, netdev);
	ret = register_netdev(netdev);
	if (ret)
		goto err_queues;
	return 0;

err_queues:
	refault_netdev_publish(dev, NULL);
	refault_queues_destroy(nd);
err_free:
	free_netdev(netdev);
	return dev_err_probe(&dev->pdev->dev, ret,
			     "cannot make the network interface\n");
}

/* The RDMA core must have let go of it. */
void refault_netdev_unregister(struct refault_dev *dev)
{
	struct net_device *netdev = dev->netdev;
	struct refault_netdev *nd;

	if (!netdev)
		return;
	nd = netdev_priv(netdev);
	unregister_netdev(netdev);
	refault_netdev_publish(dev, NULL);
	cancel_work_sync(&nd->rx_mode_work);
	refault_queues_destroy(nd);
	free_netdev(netdev);
}
