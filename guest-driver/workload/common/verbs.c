// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PORT		1
#define TIMEOUT		0	/* none: a page fault may take as long as the filesystem needs */
#define TIMEOUT_WIRE	19	/* 2.1 s: a wire may lose a packet */
#define TIMEOUT_MAX	31
#define RETRIES		7
#define FIRST_PSN	0x1000

static struct ibv_context *open_device(const char *name)
{
	int count = 0;
	struct ibv_device **list = ibv_get_device_list(&count);
	struct ibv_context *context = NULL;

	for (int i = 0; list && i < count && !context; i++)
		if (!name || !strcmp(name, ibv_get_device_name(list[i])))
			context = ibv_open_device(list[i]);
	if (list)
		ibv_free_device_list(list);
	if (!context)
		die("no RDMA device%s%s can be opened (%d present): is the driver loaded?", name ? " " : "",
		    name ? name : "", count);
	return context;
}

/* An Ethernet port is addressed by a GID: the first one that is set. */
static void address_by_gid(struct verbs_port *port)
{
	static const union ibv_gid none;
	union ibv_gid gid;

	for (int index = 0; index < 16; index++) {
		if (ibv_query_gid(port->context, PORT, index, &gid) || !memcmp(&gid, &none, sizeof(gid)))
			continue;
		port->address.is_global = 1;
		port->address.grh.dgid = gid;
		port->address.grh.sgid_index = (uint8_t)index;
		port->address.grh.hop_limit = 1;
		return;
	}
	die("the port has no GID: is its network interface up?");
}

static uint8_t ack_timeout(bool is_wire)
{
	const char *text = getenv("REFAULT_ACK_TIMEOUT");
	uint64_t code = is_wire ? TIMEOUT_WIRE : TIMEOUT;

	if (text && (!parse_size(text, &code) || code > TIMEOUT_MAX))
		die("REFAULT_ACK_TIMEOUT=%s: give a code from 0 to %d, for 4.096 us * 2^code", text, TIMEOUT_MAX);
	return (uint8_t)code;
}

bool verbs_link_loses(void)
{
	return ack_timeout(false) > 0;
}

void verbs_open_port(struct verbs_port *port, const char *device)
{
	struct ibv_port_attr attr;

	*port = (struct verbs_port){ .context = open_device(device) };
	if (ibv_query_port(port->context, PORT, &attr))
		die("ibv_query_port: %s", strerror(errno));
	if (attr.state != IBV_PORT_ACTIVE)
		die("port %d of %s is not active", PORT, ibv_get_device_name(port->context->device));
	port->address.port_num = PORT;
	port->mtu = attr.active_mtu;
	port->is_ethernet = attr.link_layer == IBV_LINK_LAYER_ETHERNET;
	port->ack_timeout = ack_timeout(port->is_ethernet);
	if (port->is_ethernet)
		address_by_gid(port);
	else
		port->address.dlid = attr.lid;
	port->pd = ibv_alloc_pd(port->context);
	if (!port->pd)
		die("ibv_alloc_pd: %s", strerror(errno));
}

void verbs_close_port(struct verbs_port *port)
{
	if (ibv_dealloc_pd(port->pd) || ibv_close_device(port->context))
		die("closing the device failed: %s", strerror(errno));
}

struct ibv_qp *verbs_create_qp(const struct verbs_port *port, struct ibv_cq *cq, uint32_t depth)
{
	struct ibv_qp_init_attr_ex init = {
		.send_cq = cq,
		.recv_cq = cq,
		.cap = { .max_send_wr = depth, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1 },
		.qp_type = IBV_QPT_RC,
		.comp_mask = IBV_QP_INIT_ATTR_PD | (port->send_ops ? IBV_QP_INIT_ATTR_SEND_OPS_FLAGS : 0),
		.pd = port->pd,
		.send_ops_flags = port->send_ops,
	};
	struct ibv_qp *qp = ibv_create_qp_ex(port->context, &init);

	if (!qp)
		die("ibv_create_qp: %s", strerror(errno));
	return qp;
}

bool verbs_reset_qp(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RESET };

	return ibv_modify_qp(qp, &attr, IBV_QP_STATE) == 0;
}

static bool to_init(const struct verbs_port *port, struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = PORT,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
				   IBV_ACCESS_REMOTE_ATOMIC | port->peer_access,
	};

	return !ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
			      IBV_QP_ACCESS_FLAGS);
}

static bool to_rtr(const struct verbs_port *port, const struct verbs_port *to, struct ibv_qp *qp, uint32_t peer)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = port->mtu < to->mtu ? port->mtu : to->mtu,
		.dest_qp_num = peer,
		.rq_psn = FIRST_PSN,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 1,
		.ah_attr = to->address,
	};

	attr.ah_attr.grh.sgid_index = port->address.grh.sgid_index;

	return !ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
			      IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
}

static bool to_rts(const struct verbs_port *port, struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS,
		.sq_psn = FIRST_PSN,
		.timeout = port->ack_timeout,
		.retry_cnt = RETRIES,
		.rnr_retry = RETRIES,
		.max_rd_atomic = 1,
	};

	return !ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
			      IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
}

bool verbs_connect_qp(const struct verbs_port *port, const struct verbs_port *to, struct ibv_qp *qp, uint32_t peer)
{
	return to_init(port, qp) && to_rtr(port, to, qp, peer) && to_rts(port, qp);
}

struct ibv_mr *verbs_on_demand_mr(const struct verbs_port *port, void *start, size_t length, unsigned int access)
{
	struct ibv_mr *mr = ibv_reg_mr(port->pd, start, length,
				       IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_ON_DEMAND | access);

	if (!mr)
		die("on-demand ibv_reg_mr(%p, %#zx): %s", start, length, strerror(errno));
	return mr;
}
