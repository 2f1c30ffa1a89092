// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Address handles. The kernel validates the address and, on RoCE, resolves it;
 * the fields that work requests need are kept here.
 */

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "provider.h"

/* The driver's part follows the one of uverbs without padding. */
struct create_ah_response {
	struct ib_uverbs_create_ah_resp ibv;
	struct refault_uverbs_ah ah;
};

static_assert(sizeof(struct create_ah_response) ==
	      sizeof(struct ib_uverbs_create_ah_resp) +
	      sizeof(struct refault_uverbs_ah), "create_ah_response");

/* What a request has in place of the remote address: its first 8 bytes. */
static_assert(offsetof(struct refault_uverbs_ah, sgid_index) == 6, "next_hop");
static_assert(offsetof(struct refault_uverbs_ah, hop_limit) == 7, "next_hop");

static void ah_set_roce(struct refault_ah *ah,
			const struct refault_uverbs_ah *resolved,
			const struct ibv_global_route *grh)
{
	memcpy(ah->next_hop, resolved, sizeof(ah->next_hop));
	ah->source_port = le16toh(resolved->source_port);
	ah->flow_class = (grh->flow_label & 0xfffff) |
			 (uint32_t)grh->traffic_class << 20;
}

struct ibv_ah *refault_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	struct create_ah_response resp = {};
	struct refault_ah *ah;
	int err;

	ah = calloc(1, sizeof(*ah));
	if (!ah)
		return NULL;
	err = ibv_cmd_create_ah(pd, &ah->ibah, attr, &resp.ibv, sizeof(resp));
	if (err) {
		free(ah);
		errno = err;
		return NULL;
	}
	ah->dlid = attr->dlid;
	ah->sl = attr->sl;
	ah->has_grh = attr->is_global;
	if (ah->has_grh)
		memcpy(ah->dgid, attr->grh.dgid.raw, sizeof(ah->dgid));
	/* Zero on InfiniBand, which has no such port. */
	if (resp.ah.source_port)
		ah_set_roce(ah, &resp.ah, &attr->grh);
	return &ah->ibah;
}

int refault_destroy_ah(struct ibv_ah *ibah)
{
	int err = ibv_cmd_destroy_ah(ibah);

	if (!err)
		free(to_ah(ibah));
	return err;
}
