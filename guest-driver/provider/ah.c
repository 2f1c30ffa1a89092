// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Address handles. The kernel validates the address; the fields that work
 * requests need are kept here.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "provider.h"

struct ibv_ah *refault_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	struct ib_uverbs_create_ah_resp resp = {};
	struct refault_ah *ah;
	int err;

	ah = calloc(1, sizeof(*ah));
	if (!ah)
		return NULL;
	err = ibv_cmd_create_ah(pd, &ah->ibah, attr, &resp, sizeof(resp));
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
	return &ah->ibah;
}

int refault_destroy_ah(struct ibv_ah *ibah)
{
	int err = ibv_cmd_destroy_ah(ibah);

	if (!err)
		free(to_ah(ibah));
	return err;
}
