/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The steps of verbs that all programs share: a port, its queue pairs, on-demand memory regions. */
#ifndef COMMON_VERBS_H
#define COMMON_VERBS_H

#include "util.h"

#include <infiniband/verbs.h>

/* An open device with a protection domain, and how queue pairs of its port address each other. */
struct verbs_port {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_ah_attr address;
	enum ibv_mtu mtu;
	bool is_ethernet;
	/* May be changed after verbs_open_port(), before queue pairs are made. */
	uint8_t ack_timeout;		/* a code, for 4.096 us * 2^code; 0: none */
	uint64_t send_ops;		/* IBV_QP_EX_WITH_*, for ibv_wr_*(); 0: for ibv_post_send() */
	unsigned int peer_access;	/* IBV_ACCESS_* that peers get besides write, read and atomic */
};

/* Opens `device`, or the first one if it is NULL; exits with a reason if there is none. */
void verbs_open_port(struct verbs_port *port, const char *device);
void verbs_close_port(struct verbs_port *port);

/* An RC queue pair in RESET, or exits. */
struct ibv_qp *verbs_create_qp(const struct verbs_port *port, struct ibv_cq *cq, uint32_t depth);

/* To RESET, from any state. */
bool verbs_reset_qp(struct ibv_qp *qp);

/*
 * Whether the link may lose packets: REFAULT_ACK_TIMEOUT in the environment has the code of an ACK timeout. Without one,
 * what is lost last is never sent again. With one, a request may fail that was executed, because its answer was lost.
 */
bool verbs_link_loses(void);

/* RESET to RTS, from `port` towards queue pair `peer` of port `to`, which may be the same. */
bool verbs_connect_qp(const struct verbs_port *port, const struct verbs_port *to, struct ibv_qp *qp, uint32_t peer);

/* An on-demand region with local and remote write, and what `access` adds; or exits. */
struct ibv_mr *verbs_on_demand_mr(const struct verbs_port *port, void *start, size_t length, unsigned int access);

#endif
