// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * The driver's part of the requests that create queues, as the kernel's rules for it want (<rdma/ib_verbs.h>, struct
 * ib_udata): what the driver does not know must be zero, and may be missing or surplus as long as it is. Each request is
 * the provider's own, changed on its way to the kernel.
 */
#include <errno.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/verbs.h"

#define SURPLUS 8

enum change {
	NONE,
	RESERVED_SET,	/* the last word */
	LONGER,		/* zeroes behind it */
	LONGER_SET,	/* something else behind it */
	SHORTER,	/* without the last word */
};

static enum change change;
static bool changed, failed;

static int with_change(int fd, struct ib_uverbs_ioctl_hdr *header, struct ib_uverbs_attr *attribute)
{
	uint8_t *data = xcalloc(1, attribute->len + SURPLUS);
	struct ib_uverbs_attr former = *attribute;
	int ret;

	memcpy(data, (void *)(uintptr_t)attribute->data, attribute->len);
	if (change == RESERVED_SET)
		data[attribute->len - 1] = 1;
	if (change == LONGER_SET)
		data[attribute->len + SURPLUS - 1] = 1;
	attribute->data = (uintptr_t)data;
	attribute->len += change == LONGER || change == LONGER_SET ? SURPLUS : change == SHORTER ? -8 : 0;
	changed = true;
	ret = (int)syscall(SYS_ioctl, fd, RDMA_VERBS_IOCTL, header);
	*attribute = former;
	free(data);
	return ret;
}

/* In place of libc's. */
int ioctl(int fd, unsigned long request, ...)
{
	struct ib_uverbs_ioctl_hdr *header;
	va_list arguments;

	va_start(arguments, request);
	header = va_arg(arguments, void *);
	va_end(arguments);
	if (change && request == RDMA_VERBS_IOCTL)
		for (unsigned int i = 0; i < header->num_attrs; i++)
			/* Longer than a word, so the attribute has its address. */
			if (header->attrs[i].attr_id == UVERBS_ATTR_UHW_IN && header->attrs[i].len > 8)
				return with_change(fd, header, &header->attrs[i]);
	return (int)syscall(SYS_ioctl, fd, request, header);
}

static struct verbs_port port;
static struct ibv_cq *queue;

static bool create_cq(void)
{
	struct ibv_cq *cq = ibv_create_cq(port.context, 8, NULL, NULL, 0);

	return cq && ibv_destroy_cq(cq) == 0;
}

static bool create_srq(void)
{
	struct ibv_srq_init_attr init = { .attr = { .max_wr = 8, .max_sge = 1 } };
	struct ibv_srq *srq = ibv_create_srq(port.pd, &init);

	return srq && ibv_destroy_srq(srq) == 0;
}

static bool create_qp(void)
{
	struct ibv_qp_init_attr init = { .send_cq = queue, .recv_cq = queue, .qp_type = IBV_QPT_RC,
					 .cap = { .max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1 } };
	struct ibv_qp *qp = ibv_create_qp(port.pd, &init);

	return qp && ibv_destroy_qp(qp) == 0;
}

static void check(const char *what, bool (*create)(void))
{
	static const struct {
		enum change change;
		const char *name;
		int error;
	} cases[] = {
		{ RESERVED_SET, "with a reserved field set", EOPNOTSUPP },
		{ LONGER_SET, "with what the driver does not know", EOPNOTSUPP },
		{ SHORTER, "too short", EINVAL },
		{ LONGER, "with surplus zeroes", 0 },
		{ NONE, "unchanged", 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		bool right;
		int error;

		change = cases[i].change;
		changed = false;
		errno = 0;
		error = create() ? 0 : errno;
		right = error == cases[i].error && changed == (change != NONE);
		change = NONE;
		printf("%s - %s %s: %s\n", right ? "ok" : "NOT OK", what, cases[i].name, strerror(error));
		failed |= !right;
	}
}

int main(void)
{
	verbs_open_port(&port, NULL);
	queue = ibv_create_cq(port.context, 8, NULL, NULL, 0);
	if (!queue)
		die("ibv_create_cq: %s", strerror(errno));
	check("a completion queue", create_cq);
	check("a shared receive queue", create_srq);
	check("a queue pair", create_qp);
	if (ibv_destroy_cq(queue))
		die("ibv_destroy_cq: %s", strerror(errno));
	verbs_close_port(&port);
	return failed;
}
