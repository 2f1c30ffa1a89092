// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Entry points of the provider: matching the device, opening it, querying it.
 */

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <infiniband/kern-abi.h>

#include "provider.h"

/* The driver's part follows the one of uverbs without padding. */
struct open_response {
	struct ib_uverbs_get_context_resp ibv;
	struct refault_uverbs_context context;
};
static_assert(sizeof(struct open_response) ==
	      sizeof(struct ib_uverbs_get_context_resp) +
	      sizeof(struct refault_uverbs_context), "open_response");

static void refault_free_context(struct ibv_context *ibcontext);

static const struct verbs_context_ops refault_context_ops = {
	.advise_mr = ibv_cmd_advise_mr,
	.alloc_pd = refault_alloc_pd,
	.create_ah = refault_create_ah,
	.create_cq = refault_create_cq,
	.create_cq_ex = refault_create_cq_ex,
	.create_qp = refault_create_qp,
	.create_qp_ex = refault_create_qp_ex,
	.create_srq = refault_create_srq,
	.dealloc_pd = refault_dealloc_pd,
	.dereg_mr = refault_dereg_mr,
	.destroy_ah = refault_destroy_ah,
	.destroy_cq = refault_destroy_cq,
	.destroy_qp = refault_destroy_qp,
	.destroy_srq = refault_destroy_srq,
	.free_context = refault_free_context,
	.modify_cq = refault_modify_cq,
	.modify_qp = refault_modify_qp,
	.modify_srq = refault_modify_srq,
	.poll_cq = refault_poll_cq,
	.post_recv = refault_post_recv,
	.post_send = refault_post_send,
	.post_srq_recv = refault_post_srq_recv,
	.query_device_ex = refault_query_device_ex,
	.query_port = refault_query_port,
	.query_qp = refault_query_qp,
	.query_srq = refault_query_srq,
	.reg_mr = refault_reg_mr,
	.req_notify_cq = refault_req_notify_cq,
};

/* Opens the kernel's context and maps its doorbell page. Returns an errno. */
static int context_open(struct refault_context *context, int cmd_fd)
{
	struct open_response resp = {};
	struct ibv_get_context cmd = {};
	void *page;
	int err;

	err = ibv_cmd_get_context(&context->vctx, &cmd, sizeof(cmd), &resp.ibv,
				  sizeof(resp));
	if (err)
		return err;
	context->doorbell_length = le32toh(resp.context.doorbell_length);
	page = mmap(NULL, context->doorbell_length, PROT_WRITE, MAP_SHARED,
		    cmd_fd, le64toh(resp.context.doorbell_offset));
	if (page == MAP_FAILED)
		return errno;
	context->doorbell = page;
	return 0;
}

static struct verbs_context *refault_alloc_context(struct ibv_device *ibdev,
						   int cmd_fd,
						   void *private_data)
{
	struct refault_context *context;
	int err;

	(void)private_data;
	context = verbs_init_and_alloc_context(ibdev, cmd_fd, context, vctx,
					       RDMA_DRIVER_UNKNOWN);
	if (!context)
		return NULL;
	err = context_open(context, cmd_fd);
	if (err) {
		verbs_uninit_context(&context->vctx);
		free(context);
		errno = err;
		return NULL;
	}
	pthread_mutex_init(&context->qp_table_lock, NULL);
	verbs_set_ops(&context->vctx, &refault_context_ops);
	return &context->vctx;
}

static void refault_free_context(struct ibv_context *ibcontext)
{
	struct refault_context *context = to_context(ibcontext);

	munmap(context->doorbell, context->doorbell_length);
	qp_table_free(context);
	pthread_mutex_destroy(&context->qp_table_lock);
	verbs_uninit_context(&context->vctx);
	free(context);
}

int refault_query_device_ex(struct ibv_context *context,
			    const struct ibv_query_device_ex_input *input,
			    struct ibv_device_attr_ex *attr, size_t attr_size)
{
	struct ib_uverbs_ex_query_device_resp resp;
	size_t resp_size = sizeof(resp);
	int err;

	err = ibv_cmd_query_device_any(context, input, attr, attr_size, &resp,
				       &resp_size);
	if (err)
		return err;
	snprintf(attr->orig_attr.fw_ver, sizeof(attr->orig_attr.fw_ver), "%llu",
		 (unsigned long long)resp.base.fw_ver);
	return 0;
}

int refault_query_port(struct ibv_context *context, uint8_t port,
		       struct ibv_port_attr *attr)
{
	struct ibv_query_port cmd;

	return ibv_cmd_query_port(context, port, attr, &cmd, sizeof(cmd));
}

static struct verbs_device *refault_alloc_device(struct verbs_sysfs_dev *sysfs)
{
	struct refault_device *device = calloc(1, sizeof(*device));

	(void)sysfs;
	return device ? &device->vdev : NULL;
}

static void refault_uninit_device(struct verbs_device *vdev)
{
	free(container_of(vdev, struct refault_device, vdev));
}

/* By PCI id: the kernel's list of RDMA driver ids has none for this NIC. */
static const struct verbs_match_ent refault_matches[] = {
	VERBS_PCI_MATCH(REFAULT_PCI_VENDOR_ID, REFAULT_PCI_DEVICE_ID, NULL),
	{}
};

static const struct verbs_device_ops refault_device_ops = {
	.name = "refault",
	.match_min_abi_version = REFAULT_UVERBS_ABI_VERSION,
	.match_max_abi_version = REFAULT_UVERBS_ABI_VERSION,
	.match_table = refault_matches,
	.alloc_device = refault_alloc_device,
	.uninit_device = refault_uninit_device,
	.alloc_context = refault_alloc_context,
};
PROVIDER_DRIVER(refault, refault_device_ops);
