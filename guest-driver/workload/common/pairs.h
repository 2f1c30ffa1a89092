/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Pairs of RC queue pairs, each a sender connected to a receiver on the same port. All share one completion queue. */
#ifndef COMMON_PAIRS_H
#define COMMON_PAIRS_H

#include "verbs.h"

struct pairs {
	const struct verbs_port *port;
	uint32_t count;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_qp **senders, **receivers;
};

/* Connects `count` pairs whose senders take `depth` requests each, or exits. The port must outlive them. */
void pairs_open(struct pairs *pairs, const struct verbs_port *port, uint32_t count, uint32_t depth);

/* Destroys the queues, or exits. The port stays open. */
void pairs_close(struct pairs *pairs);

/* Takes up to `max` completions; waits up to `wait_ms` milliseconds for the first. */
uint32_t pairs_poll(struct pairs *pairs, struct ibv_wc *wc, uint32_t max, unsigned int wait_ms);

/* Whether the sender of a pair is in the error state. */
bool pairs_failed(const struct pairs *pairs, uint32_t pair);

/* Resets both ends of a pair with nothing in flight and connects them again; false if that fails. */
bool pairs_recover(struct pairs *pairs, uint32_t pair);

#endif
