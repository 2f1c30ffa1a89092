// SPDX-License-Identifier: GPL-2.0
/*
 * Whether the Ethernet port has a signal. The NIC sends an event when that
 * changes while the port is up, and can be asked.
 */

#include "netdev.h"

/* Holding netdev_lock. */
static void refault_carrier_set(struct refault_netdev *nd, bool on)
{
	if (on && !refault_is_dead(nd->dev))
		netif_carrier_on(nd->netdev);
	else
		netif_carrier_off(nd->netdev);
}

/* Asks the NIC. An event that comes meanwhile is newer than the answer. */
void refault_carrier_read(struct refault_netdev *nd)
{
	u32 events = READ_ONCE(nd->carrier_events);
	struct refault_dev *dev = nd->dev;
	struct refault_device_caps caps;
	int ret;

	ret = refault_cmd(dev, REFAULT_CMD_QUERY_DEVICE, NULL, 0, &caps,
			  sizeof(caps));
	spin_lock_irq(&dev->netdev_lock);
	if (!ret && nd->carrier_events == events)
		refault_carrier_set(nd, le32_to_cpu(caps.carrier));
	spin_unlock_irq(&dev->netdev_lock);
}

/* No frames flow any more, whatever the signal is. */
void refault_carrier_lose(struct refault_netdev *nd)
{
	unsigned long flags;

	spin_lock_irqsave(&nd->dev->netdev_lock, flags);
	nd->carrier_events++;
	refault_carrier_set(nd, false);
	spin_unlock_irqrestore(&nd->dev->netdev_lock, flags);
}

/* Called by the event queue's handler. */
void refault_port_event(struct refault_dev *dev, u8 code)
{
	struct refault_netdev *nd;
	unsigned long flags;

	spin_lock_irqsave(&dev->netdev_lock, flags);
	nd = dev->netdev ? netdev_priv(dev->netdev) : NULL;
	if (nd) {
		nd->carrier_events++;
		refault_carrier_set(nd, code == REFAULT_PORT_EVENT_UP);
	}
	spin_unlock_irqrestore(&dev->netdev_lock, flags);
}

/* The NIC died: the interface sends nothing more. In any context. */
void refault_netdev_dead(struct refault_dev *dev)
{
	unsigned long flags;

	spin_lock_irqsave(&dev->netdev_lock, flags);
	if (dev->netdev) {
		netif_device_detach(dev->netdev);
		netif_carrier_off(dev->netdev);
	}
	spin_unlock_irqrestore(&dev->netdev_lock, flags);
}
