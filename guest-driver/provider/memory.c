// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Protection domains and memory regions. The kernel does the work; the access
 * flags say whether a region is pinned or on demand.
 *
 * Verbs has a single kind of on-demand region. The environment variable
 * REFAULT_ODP_MODE chooses the mode for programs that do not pass one of our
 * own access flags; without it, the module parameter odp_mode applies.
 */

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <infiniband/kern-abi.h>

#include "provider.h"

struct ibv_pd *refault_alloc_pd(struct ibv_context *context)
{
	struct ib_uverbs_alloc_pd_resp resp = {};
	struct ibv_alloc_pd cmd = {};
	struct ibv_pd *pd;
	int err;

	pd = calloc(1, sizeof(*pd));
	if (!pd)
		return NULL;
	err = ibv_cmd_alloc_pd(context, pd, &cmd, sizeof(cmd), &resp,
			       sizeof(resp));
	if (err) {
		free(pd);
		errno = err;
		return NULL;
	}
	return pd;
}

int refault_dealloc_pd(struct ibv_pd *pd)
{
	int err = ibv_cmd_dealloc_pd(pd);

	if (!err)
		free(pd);
	return err;
}

#define MODE_VARIABLE "REFAULT_ODP_MODE"
#define MODE_FLAGS (REFAULT_UVERBS_ACCESS_ODP | REFAULT_UVERBS_ACCESS_PASID)

static pthread_once_t mode_once = PTHREAD_ONCE_INIT;
static unsigned int mode_flag;

static void read_mode(void)
{
	const char *mode = getenv(MODE_VARIABLE);

	if (!mode || !*mode)
		return;
	if (!strcmp(mode, "pasid"))
		mode_flag = REFAULT_UVERBS_ACCESS_PASID;
	else if (!strcmp(mode, "odp"))
		mode_flag = REFAULT_UVERBS_ACCESS_ODP;
	else
		fprintf(stderr,
			"refault: ignoring " MODE_VARIABLE "=%s: use pasid or odp\n",
			mode);
}

/* Adds the environment's mode to on-demand access flags without a mode. */
static int access_of(int access)
{
	if (!(access & IBV_ACCESS_ON_DEMAND) ||
	    (unsigned int)access & MODE_FLAGS)
		return access;
	pthread_once(&mode_once, read_mode);
	return access | (int)mode_flag;
}

struct ibv_mr *refault_reg_mr(struct ibv_pd *pd, void *addr, size_t length,
			      uint64_t hca_va, int access)
{
	struct ib_uverbs_reg_mr_resp resp = {};
	struct ibv_reg_mr cmd = {};
	struct verbs_mr *vmr;
	int err;

	vmr = calloc(1, sizeof(*vmr));
	if (!vmr)
		return NULL;
	err = ibv_cmd_reg_mr(pd, addr, length, hca_va, access_of(access), vmr,
			     &cmd, sizeof(cmd), &resp, sizeof(resp));
	if (err) {
		free(vmr);
		errno = err;
		return NULL;
	}
	return &vmr->ibv_mr;
}

int refault_dereg_mr(struct verbs_mr *vmr)
{
	int err = ibv_cmd_dereg_mr(vmr);

	if (!err)
		free(vmr);
	return err;
}
