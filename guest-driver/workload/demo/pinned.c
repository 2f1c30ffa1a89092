// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `pinned`: the other way to register memory. For the DAX file the kernel refuses it, since a page that a
 * device holds for good could never move; for anonymous memory it works as usual.
 */
#define _GNU_SOURCE
#include "run.h"
#include "common/verbs.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#define BUFFER	(2 * MIB)
#define RIGHTS	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)

struct pinned {
	struct run *run;
	struct verbs_port port;
	struct ibv_cq *cq;
	struct ibv_qp *sender, *receiver;
	char *source, *target;
	struct ibv_mr *source_mr, *target_mr;
};

/* The registration must fail with the errno for "not with DAX"; any other would be another problem. */
static void file_is_refused(struct run *run, struct verbs_port *port)
{
	struct ibv_mr *mr = ibv_reg_mr(port->pd, run->mapping, run->layout.file_bytes, RIGHTS);

	if (mr) {
		ibv_dereg_mr(mr);
		run_fail(run, "the kernel pinned a DAX file: its blocks can no longer move");
		return;
	}
	if (errno != EOPNOTSUPP)
		run_fail(run, "ibv_reg_mr of the DAX file failed with %s, not EOPNOTSUPP", strerrorname_np(errno));
	run_note(run, "ibv_reg_mr of the DAX file: %s (errno %d)", strerrorname_np(errno), errno);
}

static char *anonymous(void)
{
	char *buffer = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (buffer == MAP_FAILED)
		die("out of memory");
	return buffer;
}

static bool write_and_wait(struct pinned *p, const struct slot *slot)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)p->source, .length = slot->length, .lkey = p->source_mr->lkey,
	};
	struct ibv_send_wr wr = {
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_RDMA_WRITE,
		.send_flags = IBV_SEND_SIGNALED,
		.wr.rdma = { .remote_addr = (uintptr_t)p->target + slot->offset, .rkey = p->target_mr->rkey },
	}, *bad;
	struct ibv_wc wc;
	uint64_t start = now_ns();
	int count;

	if (ibv_post_send(p->sender, &wr, &bad))
		return false;
	while ((count = ibv_poll_cq(p->cq, 1, &wc)) == 0 && now_ns() - start < HANG_NS)
		sleep_ms(1);
	return count == 1 && wc.status == IBV_WC_SUCCESS;
}

/* Records of all sizes, one after the other, through regions that pin their pages. */
static void anonymous_works(struct pinned *p)
{
	struct run *run = p->run;
	struct slot slot = { .length = RECORD_MIN };
	struct window window = { .lo = 1, .hi = 1 };
	struct mismatch bad;

	for (; slot.length <= RECORD_MAX && !run->failed; slot.index++, slot.length *= 2) {
		uint64_t wrong;

		record_fill(p->source, run->id, &slot, 1);
		if (!write_and_wait(p, &slot)) {
			run_fail(run, "a write of %u bytes through pinned regions failed", slot.length);
			return;
		}
		wrong = record_check(p->target + slot.offset, run->id, &slot, &window, &bad);
		run->counters->writes++;
		run->counters->bytes_written += slot.length;
		run->counters->bytes_verified += slot.length - wrong;
		run->counters->bytes_wrong += wrong;
		if (wrong)
			run_fail(run, "%" PRIu64 " wrong bytes through pinned regions", wrong);
		/* Off every page boundary, where that leaves room for the largest. */
		slot.offset = (slot.offset + slot.length) % (BUFFER - RECORD_MAX) / 64 * 64;
	}
}

static void pin_anonymous(struct pinned *p)
{
	p->source = anonymous();
	p->target = anonymous();
	p->source_mr = ibv_reg_mr(p->port.pd, p->source, BUFFER, RIGHTS);
	p->target_mr = ibv_reg_mr(p->port.pd, p->target, BUFFER, RIGHTS);
	if (!p->source_mr || !p->target_mr)
		die("plain ibv_reg_mr of anonymous memory: %s", strerror(errno));
	p->cq = ibv_create_cq(p->port.context, 8, NULL, NULL, 0);
	if (!p->cq)
		die("ibv_create_cq: %s", strerror(errno));
	p->sender = verbs_create_qp(&p->port, p->cq, 4);
	p->receiver = verbs_create_qp(&p->port, p->cq, 4);
	if (!verbs_connect_qp(&p->port, &p->port, p->receiver, p->sender->qp_num) ||
	    !verbs_connect_qp(&p->port, &p->port, p->sender, p->receiver->qp_num))
		die("connecting a queue pair: %s", strerror(errno));
}

static void release(struct pinned *p)
{
	if (ibv_destroy_qp(p->sender) || ibv_destroy_qp(p->receiver) || ibv_destroy_cq(p->cq) ||
	    ibv_dereg_mr(p->source_mr) || ibv_dereg_mr(p->target_mr))
		die("destroying the verbs objects failed: %s", strerror(errno));
	verbs_close_port(&p->port);
	munmap(p->source, BUFFER);
	munmap(p->target, BUFFER);
}

void pinned_refusal(struct run *run)
{
	struct verbs_port port;

	verbs_open_port(&port, run->options->devices[TRANSLATE_PINNED].target);
	file_is_refused(run, &port);
	run->counters->operations++;
	verbs_close_port(&port);
}

static void pinned(struct run *run)
{
	struct pinned p = { .run = run };

	verbs_open_port(&p.port, run->options->devices[TRANSLATE_PINNED].target);
	file_is_refused(run, &p.port);
	run->counters->operations++;
	pin_anonymous(&p);
	anonymous_works(&p);
	run->counters->operations++;
	release(&p);
}

const struct scenario scenario_pinned = {
	.name = "pinned",
	.what = "plain ibv_reg_mr: refused for the DAX file, works for anonymous memory",
	.bare = true,
	.weight = WEIGHT_REFUSAL,
	.run = pinned,
};
