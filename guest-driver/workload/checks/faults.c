// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Fault throughput by the number of queue pairs that fault at once: each writes into absent pages, one page for each
 * request, and so has one fault outstanding at a time. Also prints the guest's CPU time for each fault.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/small_pages.h"
#include "common/verbs.h"

#define PAGES		UINT64_C(1024)	/* absent in each round, shared among the queue pairs */
#define MOST		64
#define ROUNDS		3
#define BYTES		64	/* of one request */

struct bench {
	struct verbs_port port;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_qp *senders[MOST], *receivers[MOST];
	struct ibv_mr *source, *target;
	uint8_t *pages;
};

struct sample {
	double seconds;
	double busy;	/* seconds that the guest's CPUs worked, all together */
};

/* Jiffies that CPUs spent on anything but waiting. */
static double busy_seconds(void)
{
	unsigned long long user, nice, system, idle, wait, hard, soft;
	FILE *stat = fopen("/proc/stat", "r");

	if (!stat || fscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait,
			    &hard, &soft) != 7)
		die("/proc/stat cannot be read");
	fclose(stat);
	return (double)(user + nice + system + hard + soft) / (double)sysconf(_SC_CLK_TCK);
}

static void *anonymous(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* A fault is to bring one small page. */
	if (at == MAP_FAILED || ask_for_small_pages(at, bytes))
		die("no memory: %s", strerror(errno));
	return at;
}

static void set_up(struct bench *bench, const char *device)
{
	verbs_open_port(&bench->port, device);
	bench->channel = ibv_create_comp_channel(bench->port.context);
	bench->cq = bench->channel ? ibv_create_cq(bench->port.context, 4 * MOST, NULL, bench->channel, 0) : NULL;
	if (!bench->cq)
		die("no completion queue: %s", strerror(errno));
	for (int i = 0; i < MOST; i++) {
		bench->senders[i] = verbs_create_qp(&bench->port, bench->cq, PAGES);
		bench->receivers[i] = verbs_create_qp(&bench->port, bench->cq, 1);
		if (!verbs_connect_qp(&bench->port, &bench->port, bench->senders[i], bench->receivers[i]->qp_num) ||
		    !verbs_connect_qp(&bench->port, &bench->port, bench->receivers[i], bench->senders[i]->qp_num))
			die("queue pairs cannot be connected: %s", strerror(errno));
	}
	bench->pages = anonymous(PAGES * BLOCK);
	bench->target = verbs_on_demand_mr(&bench->port, bench->pages, PAGES * BLOCK, 0);
	bench->source = verbs_on_demand_mr(&bench->port, anonymous(BLOCK), BLOCK, 0);
	memset(bench->source->addr, 0x5a, BLOCK);
}

static void tear_down(struct bench *bench)
{
	int failed = 0;

	for (int i = 0; i < MOST; i++)
		failed |= ibv_destroy_qp(bench->senders[i]) | ibv_destroy_qp(bench->receivers[i]);
	failed |= ibv_dereg_mr(bench->source) | ibv_dereg_mr(bench->target);
	failed |= ibv_destroy_cq(bench->cq) | ibv_destroy_comp_channel(bench->channel);
	if (failed)
		die("tearing down failed: %s", strerror(errno));
	verbs_close_port(&bench->port);
}

/* Writes `count` pages from `first` on, a request for each; only the last one reports. */
static void post(struct bench *bench, int qp, uint64_t first, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		struct ibv_sge piece = {
			.addr = (uintptr_t)bench->source->addr, .length = BYTES, .lkey = bench->source->lkey };
		struct ibv_send_wr *bad, request = {
			.opcode = IBV_WR_RDMA_WRITE,
			.send_flags = i == count - 1 ? IBV_SEND_SIGNALED : 0,
			.sg_list = &piece,
			.num_sge = 1,
			.wr.rdma = { .remote_addr = (uintptr_t)bench->pages + (first + i) * BLOCK,
				     .rkey = bench->target->rkey } };
		int error = ibv_post_send(bench->senders[qp], &request, &bad);

		if (error)
			die("a request cannot be posted: %s", strerror(error));
	}
}

/* Takes one completion, if there is one. */
static int take(struct bench *bench)
{
	struct ibv_wc wc;
	int found = ibv_poll_cq(bench->cq, 1, &wc);

	if (found < 0)
		die("the completion queue failed");
	if (found && wc.status != IBV_WC_SUCCESS)
		die("a request failed: %s", ibv_wc_status_str(wc.status));
	return found;
}

/* Waits without polling, to leave the CPUs to the fault handler. */
static void await(struct bench *bench, int completions)
{
	struct ibv_cq *cq;
	void *context;

	while (completions > 0) {
		if (take(bench)) {
			completions--;
			continue;
		}
		if (ibv_req_notify_cq(bench->cq, 0))
			die("no notification: %s", strerror(errno));
		/* A completion before the arming raises no event. */
		if (take(bench)) {
			completions--;
			continue;
		}
		if (ibv_get_cq_event(bench->channel, &cq, &context))
			die("no event: %s", strerror(errno));
		ibv_ack_cq_events(cq, 1);
	}
}

static void check(const struct bench *bench)
{
	for (uint64_t page = 0; page < PAGES; page++)
		if (memcmp(bench->pages + page * BLOCK, bench->source->addr, BYTES))
			die("page %llu does not hold what was written", (unsigned long long)page);
}

static struct sample measure(struct bench *bench, int qps)
{
	struct sample sample;
	uint64_t start;

	if (madvise(bench->pages, PAGES * BLOCK, MADV_DONTNEED))
		die("the pages cannot be dropped: %s", strerror(errno));
	sample.busy = busy_seconds();
	start = now_ns();
	for (int i = 0; i < qps; i++)
		post(bench, i, i * (PAGES / qps), PAGES / qps);
	await(bench, qps);
	sample.seconds = seconds_since(start);
	sample.busy = busy_seconds() - sample.busy;
	check(bench);
	return sample;
}

static int by_time(const void *a, const void *b)
{
	const struct sample *x = a, *y = b;

	return (x->seconds > y->seconds) - (x->seconds < y->seconds);
}

/* The median of several rounds. */
static struct sample median(struct bench *bench, int qps)
{
	struct sample samples[ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		samples[i] = measure(bench, qps);
	qsort(samples, ROUNDS, sizeof(samples[0]), by_time);
	return samples[ROUNDS / 2];
}

int main(int argc, char **argv)
{
	static struct bench bench;
	double cpus = (double)sysconf(_SC_NPROCESSORS_ONLN), one = 0;

	set_up(&bench, argc > 1 ? argv[1] : NULL);
	measure(&bench, MOST);	/* warm-up */
	printf("%11s %10s %8s %10s %14s\n", "queue pairs", "faults/s", "ratio", "CPUs busy", "CPU us/fault");
	for (int qps = 1; qps <= MOST; qps *= 2) {
		struct sample sample = median(&bench, qps);
		double rate = (double)PAGES / sample.seconds;

		one = qps == 1 ? rate : one;
		printf("%11d %10.0f %7.2fx %8.0f %% %14.1f\n", qps, rate, rate / one,
		       100 * sample.busy / sample.seconds / cpus, 1e6 * sample.busy / (double)PAGES);
		fflush(stdout);
	}
	tear_down(&bench);
	return 0;
}
