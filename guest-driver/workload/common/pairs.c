// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "pairs.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_POLLS	64	/* empty polls before the queue is armed and slept on */

void pairs_open(struct pairs *pairs, const struct verbs_port *from, const struct verbs_port *to, uint32_t count,
		uint32_t depth)
{
	*pairs = (struct pairs){ .from = from, .to = to, .count = count };
	pairs->channel = ibv_create_comp_channel(from->context);
	if (!pairs->channel)
		die("ibv_create_comp_channel: %s", strerror(errno));
	pairs->cq = ibv_create_cq(from->context, (int)(2 * count * depth), NULL, pairs->channel, 0);
	pairs->receiver_cq = from == to ? pairs->cq : ibv_create_cq(to->context, (int)count, NULL, NULL, 0);
	if (!pairs->cq || !pairs->receiver_cq)
		die("ibv_create_cq: %s", strerror(errno));
	pairs->senders = xcalloc(count, sizeof(*pairs->senders));
	pairs->receivers = xcalloc(count, sizeof(*pairs->receivers));
	for (uint32_t i = 0; i < count; i++) {
		pairs->senders[i] = verbs_create_qp(from, pairs->cq, depth);
		pairs->receivers[i] = verbs_create_qp(to, pairs->receiver_cq, 1);	/* posts nothing */
		if (!pairs_recover(pairs, i))
			die("connecting queue pair %u: %s", i, strerror(errno));
	}
}

void pairs_close(struct pairs *pairs)
{
	bool ok = true;

	for (uint32_t i = 0; i < pairs->count; i++)
		ok &= !ibv_destroy_qp(pairs->senders[i]) && !ibv_destroy_qp(pairs->receivers[i]);
	if (pairs->receiver_cq != pairs->cq)
		ok &= !ibv_destroy_cq(pairs->receiver_cq);
	ok &= !ibv_destroy_cq(pairs->cq) && !ibv_destroy_comp_channel(pairs->channel);
	if (!ok)
		die("destroying the queues failed: %s", strerror(errno));
	free(pairs->senders);
	free(pairs->receivers);
}

static uint32_t take(struct pairs *pairs, struct ibv_wc *wc, uint32_t max)
{
	int count = ibv_poll_cq(pairs->cq, (int)max, wc);

	if (count < 0)
		die("ibv_poll_cq failed");
	return (uint32_t)count;
}

/* Sleeps until the completion queue's event or `wait_ms`; the queue must be armed. */
static void wait_event(struct pairs *pairs, unsigned int wait_ms)
{
	struct pollfd fd = { .fd = pairs->channel->fd, .events = POLLIN };
	struct ibv_cq *cq;
	void *context;

	if (poll(&fd, 1, (int)wait_ms) > 0 && ibv_get_cq_event(pairs->channel, &cq, &context) == 0)
		ibv_ack_cq_events(cq, 1);
}

uint32_t pairs_poll(struct pairs *pairs, struct ibv_wc *wc, uint32_t max, unsigned int wait_ms)
{
	uint32_t count = 0;

	for (int i = 0; i < BUSY_POLLS && !count; i++)
		count = take(pairs, wc, max);
	if (count || !wait_ms)
		return count;
	if (ibv_req_notify_cq(pairs->cq, 0))
		die("ibv_req_notify_cq failed");
	/* A completion between the last poll and the arming raises no event. */
	count = take(pairs, wc, max);
	if (count)
		return count;
	wait_event(pairs, wait_ms);
	return take(pairs, wc, max);
}

bool pairs_failed(const struct pairs *pairs, uint32_t pair)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;

	if (ibv_query_qp(pairs->senders[pair], &attr, IBV_QP_STATE, &init))
		die("ibv_query_qp failed");
	return attr.qp_state == IBV_QPS_ERR;
}

/*
 * Both ends, because a responder that refused an access may itself be in the error state (IBA 9.9.3), and because the
 * packet numbers of the two must agree.
 */
bool pairs_recover(struct pairs *pairs, uint32_t pair)
{
	struct ibv_qp *sender = pairs->senders[pair], *receiver = pairs->receivers[pair];

	return verbs_reset_qp(sender) && verbs_reset_qp(receiver) &&
	       verbs_connect_qp(pairs->to, pairs->from, receiver, sender->qp_num) &&
	       verbs_connect_qp(pairs->from, pairs->to, sender, receiver->qp_num);
}
