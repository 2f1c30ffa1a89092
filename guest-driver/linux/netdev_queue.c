// SPDX-License-Identifier: GPL-2.0
/*
 * The frames of the network interface. They are sent and received by a queue
 * pair of their own, whose requests are whole frames. All frames are copied to
 * and from coherent memory that stays mapped: with an IOMMU, mapping each of
 * them costs more than the copy.
 *
 * A transmit function and one NAPI context use the rings, so that neither needs
 * their locks.
 */

#include <linux/dma-mapping.h>

#include "netdev.h"

static int refault_frames_alloc(struct refault_netdev *nd,
				struct refault_frame *frames, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		frames[i].bytes = dma_alloc_coherent(&nd->dev->pdev->dev,
						     nd->max_frame,
						     &frames[i].dma, GFP_KERNEL);
		if (!frames[i].bytes)
			return -ENOMEM;
	}
	return 0;
}

static void refault_frames_free(struct refault_netdev *nd,
				struct refault_frame *frames, size_t count)
{
	size_t i;

	for (i = 0; i < count && frames[i].bytes; i++)
		dma_free_coherent(&nd->dev->pdev->dev, nd->max_frame,
				  frames[i].bytes, frames[i].dma);
}

/* Handlers of the CQ and the QP; called by the event queue's handler. */
static void refault_frames_completed(struct ib_cq *ibcq, void *context)
{
	struct refault_netdev *nd = context;

	if (!refault_is_dead(nd->dev))
		napi_schedule(&nd->napi);
}

static void refault_frames_failed(struct ib_event *event, void *context)
{
	struct refault_netdev *nd = context;

	if (event->event == IB_EVENT_COMM_EST)
		return;
	netdev_err(nd->netdev, "%s; set it down and up again\n",
		   ib_event_msg(event->event));
	refault_carrier_lose(nd);
}

static int refault_make_cq(struct refault_netdev *nd)
{
	struct ib_cq *ibcq = &nd->cq.ibcq;

	ibcq->device = &nd->dev->ibdev;
	ibcq->comp_handler = refault_frames_completed;
	ibcq->event_handler = refault_frames_failed;
	ibcq->cq_context = nd;
	return refault_cq_make(nd->dev, &nd->cq, REFAULT_LOG_FRAMES, 0);
}

static int refault_make_qp(struct refault_netdev *nd)
{
	struct ib_qp *ibqp = &nd->qp.ibqp;
	struct ib_qp_init_attr attr = {
		.send_cq = &nd->cq.ibcq,
		.recv_cq = &nd->cq.ibcq,
		.cap.max_send_wr = BIT(REFAULT_LOG_TX),
		.cap.max_recv_wr = BIT(REFAULT_LOG_RX),
		.sq_sig_type = IB_SIGNAL_ALL_WR,
		.qp_type = IB_QPT_RAW_PACKET,
	};

	ibqp->device = &nd->dev->ibdev;
	ibqp->pd = &nd->pd.ibpd;
	ibqp->qp_type = attr.qp_type;
	ibqp->send_cq = attr.send_cq;
	ibqp->recv_cq = attr.recv_cq;
	ibqp->event_handler = refault_frames_failed;
	ibqp->qp_context = nd;
	return refault_qp_make(nd->dev, &nd->qp, &attr);
}

/* Allocates all frames, and the NIC's objects to send and receive them. */
int refault_queues_make(struct refault_netdev *nd)
{
	int ret;

	nd->pd.ibpd.device = &nd->dev->ibdev;
	ret = refault_kernel_pd(nd->dev, &nd->pd.id);
	if (ret)
		return ret;
	nd->mr = refault_get_dma_mr(&nd->pd.ibpd, IB_ACCESS_LOCAL_WRITE);
	ret = PTR_ERR_OR_ZERO(nd->mr);
	if (ret)
		goto err_pd;
	nd->mr->device = &nd->dev->ibdev;
	ret = refault_make_cq(nd);
	if (ret)
		goto err_mr;
	ret = refault_frames_alloc(nd, nd->tx, ARRAY_SIZE(nd->tx));
	if (ret)
		goto err_frames;
	ret = refault_frames_alloc(nd, nd->rx, ARRAY_SIZE(nd->rx));
	if (ret)
		goto err_frames;
	ret = refault_make_qp(nd);
	if (ret)
		goto err_frames;
	return 0;

err_frames:
	refault_frames_free(nd, nd->rx, ARRAY_SIZE(nd->rx));
	refault_frames_free(nd, nd->tx, ARRAY_SIZE(nd->tx));
	refault_destroy_cq(&nd->cq.ibcq, NULL);
err_mr:
	refault_dereg_mr(nd->mr, NULL);
err_pd:
	refault_dealloc_pd(&nd->pd.ibpd, NULL);
	return ret;
}

/* Undoes it. Memory that the NIC will not give up stays allocated. */
void refault_queues_destroy(struct refault_netdev *nd)
{
	if (refault_destroy_qp(&nd->qp.ibqp, NULL) ||
	    refault_destroy_cq(&nd->cq.ibcq, NULL) ||
	    refault_dereg_mr(nd->mr, NULL) ||
	    refault_dealloc_pd(&nd->pd.ibpd, NULL))
		refault_die(nd->dev, "the queues for frames could not be destroyed");
	refault_frames_free(nd, nd->rx, ARRAY_SIZE(nd->rx));
	refault_frames_free(nd, nd->tx, ARRAY_SIZE(nd->tx));
}

static void refault_fill_frame(struct refault_sge *sge,
			       const struct refault_frame *frame, u32 length,
			       u32 lkey)
{
	sge->addr = cpu_to_le64(frame->dma);
	sge->length = cpu_to_le32(length);
	sge->lkey = cpu_to_le32(lkey);
}

/* Fills the receive ring. The requests stay as they are from then on. */
static void refault_fill_rx(struct refault_netdev *nd)
{
	struct refault_queue *rq = &nd->qp.rings.rq;
	struct refault_rq_wqe *wqe = rq->ring;
	u32 i;

	for (i = 0; i < rq->size; i++) {
		memset(&wqe[i], 0, sizeof(wqe[i]));
		wqe[i].num_sge = cpu_to_le32(1);
		refault_fill_frame(&wqe[i].sge[0], &nd->rx[i], nd->max_frame,
				   nd->mr->lkey);
	}
	rq->head = rq->size;
	refault_ring_recv(&nd->qp);
}

/* Has frames flow. The interface is not up yet. */
int refault_queues_start(struct refault_netdev *nd)
{
	static const enum ib_qp_state states[] = { IB_QPS_INIT, IB_QPS_RTR,
						   IB_QPS_RTS };
	unsigned int i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		ret = refault_qp_move(&nd->qp, states[i]);
		if (ret) {
			refault_queues_stop(nd);
			return ret;
		}
		if (states[i] == IB_QPS_INIT)
			refault_fill_rx(nd);
	}
	return 0;
}

/* Drops all frames. Neither transmit function nor NAPI may be running. */
void refault_queues_stop(struct refault_netdev *nd)
{
	if (refault_qp_move(&nd->qp, IB_QPS_RESET) && !refault_is_dead(nd->dev))
		refault_die(nd->dev, "the queue pair for frames could not be reset");
	refault_qp_rings_reset(&nd->qp);
}

static bool refault_tx_full(const struct refault_queue *sq)
{
	/* Pairs with refault_queue_retire(): the frame was read. */
	return sq->head - smp_load_acquire(&sq->tail) >= sq->size;
}

/* Copies a frame into the next slot. Hardware pads short ones, and so do we. */
static void refault_post_frame(struct refault_netdev *nd,
			       const struct sk_buff *skb)
{
	struct refault_queue *sq = &nd->qp.rings.sq;
	u32 slot = sq->head & (sq->size - 1);
	struct refault_sq_wqe *wqe = sq->ring;
	u32 length = max_t(u32, skb->len, ETH_ZLEN);

	wqe += slot;
	skb_copy_bits(skb, 0, nd->tx[slot].bytes, skb->len);
	memset(nd->tx[slot].bytes + skb->len, 0, length - skb->len);
	memset(wqe, 0, sizeof(*wqe));
	wqe->opcode = REFAULT_OP_SEND;
	wqe->num_sge = 1;
	refault_fill_frame(&wqe->sge[0], &nd->tx[slot], length, nd->mr->lkey);
	sq->head++;
}

/* The last slot was taken: stop, unless NAPI has freed some meanwhile. */
static void refault_tx_stop(struct refault_netdev *nd)
{
	netif_stop_queue(nd->netdev);
	/* Pairs with refault_tx_wake(): one of both sees the other's store. */
	smp_mb();
	if (!refault_tx_full(&nd->qp.rings.sq))
		netif_start_queue(nd->netdev);
}

static void refault_tx_wake(struct refault_netdev *nd)
{
	/* Pairs with refault_tx_stop(). */
	smp_mb();
	if (netif_queue_stopped(nd->netdev) && netif_device_present(nd->netdev) &&
	    !refault_tx_full(&nd->qp.rings.sq))
		netif_wake_queue(nd->netdev);
}

netdev_tx_t refault_xmit(struct sk_buff *skb, struct net_device *netdev)
{
	struct refault_netdev *nd = netdev_priv(netdev);
	struct refault_queue *sq = &nd->qp.rings.sq;

	if (refault_tx_full(sq)) {
		netif_stop_queue(netdev);
		return NETDEV_TX_BUSY;
	}
	if (refault_is_dead(nd->dev) || skb->len > nd->max_frame) {
		DEV_STATS_INC(netdev, tx_dropped);
		dev_kfree_skb_any(skb);
	} else {
		skb_tx_timestamp(skb);
		refault_post_frame(nd, skb);
		dev_sw_netstats_tx_add(netdev, 1, skb->len);
		dev_consume_skb_any(skb);
		if (refault_tx_full(sq))
			refault_tx_stop(nd);
	}
	if (!netdev_xmit_more() || netif_queue_stopped(netdev))
		refault_ring_send(&nd->qp);
	return NETDEV_TX_OK;
}

static void refault_deliver(struct refault_netdev *nd, u32 slot, u32 length)
{
	struct sk_buff *skb = napi_alloc_skb(&nd->napi, length);

	if (!skb) {
		DEV_STATS_INC(nd->netdev, rx_dropped);
		return;
	}
	skb_put_data(skb, nd->rx[slot].bytes, length);
	skb->protocol = eth_type_trans(skb, nd->netdev);
	dev_sw_netstats_rx_add(nd->netdev, length);
	napi_gro_receive(&nd->napi, skb);
}

/* Takes a frame and posts its slot, the oldest, again. */
static void refault_receive(struct refault_netdev *nd,
			    const struct refault_cqe *cqe)
{
	struct refault_queue *rq = &nd->qp.rings.rq;
	u32 length = le32_to_cpu(cqe->byte_len);

	/* The queue pair has failed, and takes no other frame. */
	if (cqe->status == REFAULT_WC_WR_FLUSH_ERR)
		return;
	if (cqe->status || length < ETH_HLEN || length > nd->max_frame)
		DEV_STATS_INC(nd->netdev, rx_errors);
	else
		refault_deliver(nd, le32_to_cpu(cqe->wqe_index) & (rq->size - 1),
				length);
	refault_queue_retire(rq, cqe);
	rq->head++;
}

static void refault_sent(struct refault_netdev *nd,
			 const struct refault_cqe *cqe)
{
	if (cqe->status)
		DEV_STATS_INC(nd->netdev, tx_errors);
	refault_queue_retire(&nd->qp.rings.sq, cqe);
}

int refault_napi_poll(struct napi_struct *napi, int budget)
{
	struct refault_netdev *nd = container_of(napi, struct refault_netdev,
						 napi);
	const struct refault_cqe *cqe;
	int done = 0;

	while (done < budget && (cqe = refault_cq_take(&nd->cq))) {
		if (cqe->flags & REFAULT_CQE_RECEIVE)
			refault_receive(nd, cqe);
		else
			refault_sent(nd, cqe);
		done++;
	}
	refault_cq_publish(&nd->cq);
	if (done) {
		refault_ring_recv(&nd->qp);
		refault_tx_wake(nd);
	}
	if (done < budget && napi_complete_done(napi, done))
		refault_cq_arm(&nd->cq, REFAULT_DOORBELL_CQ_ARM);
	return done;
}
