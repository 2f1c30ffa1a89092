// SPDX-License-Identifier: Apache-2.0 OR MIT
/* Queue pairs, requests and completions. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "load.h"
#include "notify.h"

/* A host that takes longer than this does not answer at all. */
#define ANSWER_MS	60000

/* A place for one request of a queue pair. */
struct slot {
	uint8_t *buffer;
	uint64_t arrived_ns, value;
	uint32_t message;
	bool write;
};

struct run {
	struct load *load;
	const struct load_options *options;
	struct verbs_port port;
	struct pairs pairs;
	struct ibv_mr *source, *target;
	struct slot *slots;
	uint32_t *room;		/* free slots, the longest free first */
	uint64_t slot_count, room_first, room_count;
	struct load_request *requests;
	uint64_t request_count, next;
	uint64_t start_ns, due_ns;
	uint64_t *latencies;
	struct load_totals totals;
};

static void read_requests(struct run *run)
{
	int fd = open(run->options->requests, O_RDONLY | O_CLOEXEC);
	struct stat info;

	if (fd < 0 || fstat(fd, &info))
		die("%s: %s", run->options->requests, strerror(errno));
	run->request_count = (uint64_t)info.st_size / sizeof(*run->requests);
	run->requests = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (!run->request_count || run->requests == MAP_FAILED)
		die("%s: no requests", run->options->requests);
	for (uint64_t i = 0; i < run->request_count; i++)
		if (run->requests[i].message >= run->load->message_count)
			die("%s: request %llu is outside the target", run->options->requests, (unsigned long long)i);
	close(fd);
}

/* Present pages are in the process' page table; the NIC's own table must be filled. */
static void fill_table(struct run *run, struct ibv_mr *mr)
{
	uint64_t at, bytes, most = UINT64_C(1) << 30;

	for (at = 0; run->options->odp && at < mr->length; at += bytes) {
		struct ibv_sge piece = { .addr = (uintptr_t)mr->addr + at, .lkey = mr->lkey };
		int error;

		bytes = mr->length - at < most ? mr->length - at : most;
		piece.length = (uint32_t)bytes;
		error = ibv_advise_mr(run->port.pd, IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, IBV_ADVISE_MR_FLAG_FLUSH,
				      &piece, 1);
		if (error)
			die("the NIC's table cannot be filled: %s", strerror(error));
	}
}

static void open_memory(struct run *run)
{
	const struct load_options *options = run->options;
	uint64_t stride = (options->message_bytes + BLOCK - 1) & ~(BLOCK - 1), bytes = stride * run->slot_count;
	uint8_t *source = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (source == MAP_FAILED || madvise(source, bytes, MADV_DONTFORK))
		die("no memory for %llu requests: %s", (unsigned long long)run->slot_count, strerror(errno));
	memset(source, 0x5a, bytes);
	for (uint64_t i = 0; i < run->slot_count; i++)
		run->slots[i].buffer = source + i * stride;
	run->source = verbs_on_demand_mr(&run->port, source, bytes, IBV_ACCESS_REMOTE_READ);
	fill_table(run, run->source);
	run->target = verbs_on_demand_mr(&run->port, run->load->target, options->region_bytes, IBV_ACCESS_REMOTE_READ);
	if (options->warm)
		fill_table(run, run->target);
}

static void set_up(struct run *run)
{
	uint64_t pairs = run->options->queue_pairs, depth = run->options->depth;

	run->slot_count = pairs * depth;
	run->slots = xcalloc(run->slot_count, sizeof(*run->slots));
	run->room = xcalloc(run->slot_count, sizeof(*run->room));
	verbs_open_port(&run->port, NULL);
	pairs_open(&run->pairs, &run->port, &run->port, (uint32_t)pairs, (uint32_t)depth);
	/* One of each queue pair, then another of each. */
	for (uint64_t i = 0; i < run->slot_count; i++)
		run->room[i] = (uint32_t)(i % pairs * depth + i / pairs);
	run->room_count = run->slot_count;
	open_memory(run);
	run->latencies = xcalloc(run->request_count, sizeof(*run->latencies));
}

static void tear_down(struct run *run)
{
	pairs_close(&run->pairs);
	if (ibv_dereg_mr(run->source) || ibv_dereg_mr(run->target))
		die("deregistering memory failed: %s", strerror(errno));
	verbs_close_port(&run->port);
}

static void post(struct run *run, uint32_t slot_number, uint64_t arrived_ns)
{
	const struct load_request *request = &run->requests[run->next++];
	uint64_t bytes = run->options->message_bytes, offset = request->message * bytes;
	struct slot *slot = &run->slots[slot_number];
	struct ibv_sge piece = {
		.addr = (uintptr_t)slot->buffer, .length = (uint32_t)bytes, .lkey = run->source->lkey };
	struct ibv_send_wr *bad, work = {
		.wr_id = slot_number,
		.opcode = request->flags & LOAD_WRITE ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ,
		.send_flags = IBV_SEND_SIGNALED,
		.sg_list = &piece,
		.num_sge = 1,
		.wr.rdma = { .remote_addr = (uintptr_t)run->load->target + offset, .rkey = run->target->rkey } };
	int error;

	*slot = (struct slot){ slot->buffer, arrived_ns, mix64(run->next) | 1, request->message,
			       request->flags & LOAD_WRITE };
	if (request->flags & LOAD_COLD)
		load_target_drop(run->load, offset, bytes);
	load_mark(slot->buffer, bytes, slot->write ? slot->value : ~slot->value);
	load_posted(run->load, slot->message, slot->write, slot->value);
	error = ibv_post_send(run->pairs.senders[slot_number / run->options->depth], &work, &bad);
	if (error)
		die("a request cannot be posted: %s", strerror(error));
}

/* Posts what has arrived and finds room. */
static void post_all(struct run *run)
{
	while (run->next < run->request_count && run->room_count) {
		uint64_t now = now_ns(), gap = run->requests[run->next].gap_ns;
		uint32_t slot;

		if (run->options->open && now < run->due_ns + gap)
			return;
		run->due_ns = run->options->open ? run->due_ns + gap : now;
		slot = run->room[run->room_first++ % run->slot_count];
		run->room_count--;
		post(run, slot, run->due_ns);
	}
}

static void complete(struct run *run, const struct ibv_wc *wc)
{
	struct slot *slot = &run->slots[wc->wr_id];
	bool success = wc->status == IBV_WC_SUCCESS;
	uint64_t now = now_ns();

	if (success)
		run->latencies[run->totals.latencies++] = now - slot->arrived_ns;
	run->totals.completed += success;
	run->totals.failed += !success;
	run->totals.bytes += success ? run->options->message_bytes : 0;
	run->totals.duration_ns = now - run->start_ns;
	load_back(run->load, slot->message, slot->write, slot->value, slot->buffer, success);
	run->room[(run->room_first + run->room_count++) % run->slot_count] = (uint32_t)wc->wr_id;
	if (!success)
		die("a request failed: %s", ibv_wc_status_str(wc->status));
}

static int take(struct run *run)
{
	struct ibv_wc completions[16];
	int count = ibv_poll_cq(run->pairs.cq, 16, completions);

	if (count < 0)
		die("the completion queue failed");
	for (int i = 0; i < count; i++)
		complete(run, &completions[i]);
	return count;
}

/* Waits for a completion or the next arrival without polling, to leave the CPUs to the fault handler. */
static void await(struct run *run)
{
	struct pollfd event = { run->pairs.channel->fd, POLLIN, 0 };
	struct timespec timeout = { 0 }, *limit = NULL;
	void *context;
	struct ibv_cq *cq;

	if (ibv_req_notify_cq(run->pairs.cq, 0))
		die("no notification: %s", strerror(errno));
	/* A completion before the arming raises no event. */
	if (take(run))
		return;
	if (run->options->open && run->next < run->request_count && run->room_count) {
		uint64_t due = run->due_ns + run->requests[run->next].gap_ns, now = now_ns();

		timeout.tv_sec = due > now ? (time_t)((due - now) / 1000000000) : 0;
		timeout.tv_nsec = due > now ? (long)((due - now) % 1000000000) : 0;
		limit = &timeout;
	}
	if (ppoll(&event, 1, limit, NULL) <= 0)
		return;
	if (ibv_get_cq_event(run->pairs.channel, &cq, &context))
		die("no event: %s", strerror(errno));
	ibv_ack_cq_events(cq, 1);
}

static void write_results(const struct run *run)
{
	FILE *file = fopen(run->options->results, "w");
	size_t count = run->totals.latencies;

	if (!file || fwrite(&run->totals, sizeof(run->totals), 1, file) != 1 ||
	    fwrite(run->latencies, sizeof(*run->latencies), count, file) != count || fclose(file))
		die("%s: %s", run->options->results, strerror(errno));
}

void load_run(struct load *load, const struct load_options *options)
{
	struct run run = { .load = load, .options = options };
	struct host host = { options->control, ANSWER_MS };
	struct load_churn *churn;

	read_requests(&run);
	set_up(&run);
	host_notify(&host, "load-begin");
	churn = load_churn_start(load);
	run.start_ns = run.due_ns = now_ns();
	while (run.totals.completed < run.request_count) {
		post_all(&run);
		if (!take(&run))
			await(&run);
	}
	run.totals.churned = load_churn_stop(churn);
	run.totals.checked = load->checked;
	run.totals.wrong = load->wrong;
	host_notify(&host, "load-end");
	write_results(&run);
	printf("%llu requests, %llu checked, %llu wrong, %llu changes to memory\n",
	       (unsigned long long)run.totals.completed, (unsigned long long)load->checked,
	       (unsigned long long)load->wrong, (unsigned long long)run.totals.churned);
	tear_down(&run);
}
