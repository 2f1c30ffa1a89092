/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Declarations of the network interface: netdev.c, netdev_queue.c, carrier.c.
 */
#ifndef REFAULT_NETDEV_H
#define REFAULT_NETDEV_H

#include <linux/etherdevice.h>
#include <linux/netdevice.h>

#include "refault.h"

#define REFAULT_LOG_TX 7
#define REFAULT_LOG_RX 8
/* Room for the completions of both. */
#define REFAULT_LOG_FRAMES 9

static_assert(BIT(REFAULT_LOG_FRAMES) >= BIT(REFAULT_LOG_TX) + BIT(REFAULT_LOG_RX));

/* Memory of one frame, which the NIC reads or writes. */
struct refault_frame {
	void *bytes;
	dma_addr_t dma;
};

/* Private part of the net_device. */
struct refault_netdev {
	struct refault_dev *dev;
	struct net_device *netdev;
	struct napi_struct napi;

	/* On the NIC: not known to the RDMA core. */
	struct refault_pd pd;
	struct ib_mr *mr;
	struct refault_cq cq;
	struct refault_qp qp;
	u32 max_frame;
	/* Slot n of a ring uses frame n. */
	struct refault_frame tx[BIT(REFAULT_LOG_TX)];
	struct refault_frame rx[BIT(REFAULT_LOG_RX)];

	struct mutex port_lock;	/* Serialises CMD_SET_PORT; protects: */
	bool up;
	u8 mac[ETH_ALEN];
	struct work_struct rx_mode_work;

	/* Protected by netdev_lock of the NIC. */
	u32 carrier_events;
};

/* netdev_queue.c */
int refault_queues_make(struct refault_netdev *nd);
void refault_queues_destroy(struct refault_netdev *nd);
int refault_queues_start(struct refault_netdev *nd);
void refault_queues_stop(struct refault_netdev *nd);
netdev_tx_t refault_xmit(struct sk_buff *skb, struct net_device *netdev);
int refault_napi_poll(struct napi_struct *napi, int budget);

/* carrier.c */
void refault_carrier_read(struct refault_netdev *nd);
void refault_carrier_lose(struct refault_netdev *nd);

#endif
