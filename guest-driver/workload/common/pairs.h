/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Pairs of RC queue pairs, each a sender connected to a receiver. All senders share one completion queue. */
#ifndef COMMON_PAIRS_H
#define COMMON_PAIRS_H

#include "verbs.h"

struct pairs {
	const struct verbs_port *from, *to;
	uint32_t count;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq, *receiver_cq;	/* the same one on one port */
	struct ibv_qp **senders, **receivers;
};

/*
 * Connects `count` pairs, their senders at port `from` and their receivers at port `to`, which may be the same, or exits.
 * A sender takes `depth` requests. The ports must outlive the pairs.
 */
void pairs_open(struct pairs *pairs, const struct verbs_port *from, const struct verbs_port *to, uint32_t count,
		uint32_t depth);

/* Destroys the queues, or exits. The port stays open. */
void pairs_close(struct pairs *pairs);

/* Takes up to `max` completions; waits up to `wait_ms` milliseconds for the first. */
uint32_t pairs_poll(struct pairs *pairs, struct ibv_wc *wc, uint32_t max, unsigned int wait_ms);

/* Whether the sender of a pair is in the error state. */
bool pairs_failed(const struct pairs *pairs, uint32_t pair);

/* Resets both ends of a pair with nothing in flight and connects them again; false if that fails. */
bool pairs_recover(struct pairs *pairs, uint32_t pair);

#endif
