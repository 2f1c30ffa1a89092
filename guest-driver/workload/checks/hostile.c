// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * Hostile processes beside an honest one. They use the device as libibverbs does, but overwrite their rings, doorbell
 * records and doorbell pages, spoil the system calls that libibverbs makes, map the device file at odd offsets, and aim
 * at the keys and queue pairs of the honest process. They may fail or die as they like. The honest process, which
 * checks each byte that it moves, must not notice.
 *
 *   refault-hostile [PROCESSES [SEED]]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/others.h"

#define PROCESSES	30	/* one after the other */
#define ACTIONS		200	/* of each */
#define AREAS		64	/* of a hostile process' memory that are remembered */
#define LIFE_SECONDS	60	/* of one that got stuck, for example by its own scribbling */
#define BUFFER		(16 * BLOCK)

/* What the honest process lets the others know, as if they had guessed it. */
struct secrets {
	uint64_t at;
	uint32_t rkey, qpn;
	uint64_t rounds;
	bool stop;
};

struct area {
	char *start;
	size_t length;
	bool device;
};

static struct secrets *secrets;
static struct rng rng;
static bool spoiling;
static struct area areas[AREAS];
static unsigned int num_areas;

/* In place of libc's, for the provider too: its rings are what is mapped while libibverbs creates a queue. */
void *mmap(void *where, size_t length, int protection, int flags, int fd, off_t offset)
{
	void *at = (void *)syscall(SYS_mmap, where, length, protection, flags, fd, offset);

	if (at != MAP_FAILED && num_areas < AREAS && (fd >= 0 || length <= 64 * BLOCK) && protection & PROT_WRITE)
		areas[num_areas++] = (struct area){ at, length, fd >= 0 };
	return at;
}

int munmap(void *start, size_t length)
{
	for (unsigned int i = 0; i < num_areas; i++)
		if (areas[i].start == start)
			areas[i--] = areas[--num_areas];
	return (int)syscall(SYS_munmap, start, length);
}

/* A value that is likely to matter somewhere. */
static uint64_t odd_value(void)
{
	static const uint64_t odd[] = { 0, 1, 2, 7, 8, 16, 63, 64, 255, 4095, 4096, 65536, 1u << 24, UINT32_MAX,
					1ull << 32, 1ull << 47, 1ull << 63, UINT64_MAX };

	switch (rng_below(&rng, 4)) {
	case 0:
		return rng_next(&rng);
	case 1:
		return secrets->qpn + rng_below(&rng, 8);
	default:
		return odd[rng_below(&rng, sizeof(odd) / sizeof(odd[0]))];
	}
}

/* Changes one thing in one attribute of a call of uverbs. */
static void spoil(struct ib_uverbs_ioctl_hdr *header)
{
	struct ib_uverbs_attr *attribute;

	if (!header->num_attrs)
		return;
	attribute = &header->attrs[rng_below(&rng, header->num_attrs)];
	/* Most often what is the driver's. */
	for (unsigned int i = 0; i < header->num_attrs && rng_below(&rng, 3); i++)
		if (header->attrs[i].attr_id == UVERBS_ATTR_UHW_IN || header->attrs[i].attr_id == UVERBS_ATTR_UHW_OUT)
			attribute = &header->attrs[i];
	switch (rng_below(&rng, 6)) {
	case 0:
		attribute->len = (uint16_t)odd_value();
		break;
	case 1:
		attribute->len += (uint16_t)(8 - rng_below(&rng, 17));
		break;
	case 2:
		attribute->data = odd_value();
		break;
	case 3:
		attribute->attr_id = (uint16_t)odd_value();
		break;
	case 4:
		header->method_id = (uint16_t)rng_below(&rng, 16);
		break;
	default:
		/* The content, where it is a buffer: the driver's is always longer than a word. */
		if (attribute->len > sizeof(attribute->data) && attribute->data)
			((uint8_t *)(uintptr_t)attribute->data)[rng_below(&rng, attribute->len)] = (uint8_t)odd_value();
	}
}

/* In place of libc's: what goes to uverbs is spoiled now and then, in a copy. */
int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	void *argument;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (spoiling && request == RDMA_VERBS_IOCTL && rng_below(&rng, 3) == 0) {
		struct ib_uverbs_ioctl_hdr *header = argument, *copy = malloc(header->length);

		memcpy(copy, header, header->length);
		spoil(copy);
		syscall(SYS_ioctl, fd, request, copy);
		free(copy);
	}
	return (int)syscall(SYS_ioctl, fd, request, argument);
}

/* Random words into rings, records and counters. A doorbell page also gets what looks like doorbells. */
static void scribble(void)
{
	struct area *area;
	uint64_t words, count;

	if (!num_areas)
		return;
	area = &areas[rng_below(&rng, num_areas)];
	words = area->length / sizeof(uint64_t);
	if (area->device) {
		/* One word of the page is a register; now and then other offsets, and a read. */
		volatile uint64_t *page = (void *)area->start;

		for (int i = 0; i < 8; i++)
			page[rng_below(&rng, 8) ? 0 : rng_below(&rng, words)] =
				rng_below(&rng, 4) << 56 | (odd_value() & 0xffffff) << 32 | (uint32_t)odd_value();
		((volatile uint32_t *)page)[rng_below(&rng, 4)] = (uint32_t)odd_value();
		((volatile uint8_t *)page)[rng_below(&rng, 16)] = (uint8_t)odd_value();
		return;
	}
	for (count = rng_below(&rng, 32); count; count--)
		((volatile uint64_t *)area->start)[rng_below(&rng, words)] = odd_value();
}

/* Maps the device file in every wrong way. */
static void map_oddly(const struct verbs_port *port)
{
	static const int protections[] = { PROT_READ, PROT_WRITE, PROT_READ | PROT_WRITE,
					   PROT_READ | PROT_WRITE | PROT_EXEC, PROT_NONE };
	size_t length = BLOCK << rng_below(&rng, 4);
	off_t offset = (off_t)(rng_below(&rng, 3) ? rng_below(&rng, 8) : odd_value() >> 13) * (off_t)BLOCK;
	int flags = rng_below(&rng, 4) ? MAP_SHARED : MAP_PRIVATE;
	char *at = (char *)syscall(SYS_mmap, NULL, length, protections[rng_below(&rng, 5)], flags,
				   port->context->cmd_fd, offset);

	if (at == MAP_FAILED)
		return;
	/* If it was accepted it is the doorbell page, and parts of it may go. */
	mremap(at, length, 2 * length, MREMAP_MAYMOVE);
	mprotect(at, BLOCK, PROT_READ | PROT_WRITE);
	madvise(at, BLOCK, rng_below(&rng, 2) ? MADV_DONTNEED : MADV_DOFORK);
	syscall(SYS_munmap, at, length);
}

/* A write of its own queue pair to the honest process' memory, or anywhere else. */
static void aim(struct pairs *pairs, struct ibv_mr *mr)
{
	struct ibv_sge piece = { .addr = (uintptr_t)mr->addr, .length = (uint32_t)rng_below(&rng, 2 * BUFFER),
				 .lkey = rng_below(&rng, 2) ? mr->lkey : secrets->rkey };
	struct ibv_send_wr *bad, request = {
		.opcode = rng_below(&rng, 2) ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ,
		.send_flags = IBV_SEND_SIGNALED, .sg_list = &piece, .num_sge = 1,
		.wr.rdma = { .remote_addr = secrets->at + rng_below(&rng, BUFFER),
			     .rkey = rng_below(&rng, 4) ? secrets->rkey : (uint32_t)odd_value() } };

	ibv_post_send(pairs->senders[rng_below(&rng, pairs->count)], &request, &bad);
}

/* Connects a queue pair of its own to the honest one's, or to itself again. */
static void reconnect(struct verbs_port *port, struct pairs *pairs)
{
	uint32_t pair = (uint32_t)rng_below(&rng, pairs->count);

	if (rng_below(&rng, 2)) {
		pairs_recover(pairs, pair);
	} else if (verbs_reset_qp(pairs->senders[pair])) {
		verbs_connect_qp(port, port, pairs->senders[pair], secrets->qpn + (uint32_t)rng_below(&rng, 2));
	}
}

static void take_some(struct pairs *pairs)
{
	struct ibv_wc wc[8];

	ibv_req_notify_cq(pairs->cq, 0);
	ibv_poll_cq(pairs->cq, 8, wc);
}

static void create_and_destroy(struct verbs_port *port)
{
	struct ibv_srq_init_attr init = { .attr = { .max_wr = 16, .max_sge = 1 } };
	struct ibv_cq *cq = ibv_create_cq(port->context, 16, NULL, NULL, 0);
	struct ibv_srq *srq = ibv_create_srq(port->pd, &init);
	struct ibv_mr *mr = ibv_reg_mr(port->pd, NULL, SIZE_MAX, IBV_ACCESS_ON_DEMAND | IBV_ACCESS_LOCAL_WRITE);

	if (mr)
		ibv_dereg_mr(mr);
	if (srq)
		ibv_destroy_srq(srq);
	if (cq)
		ibv_destroy_cq(cq);
}

/* One hostile process, from opening the device to whatever end it finds. */
static void attack(uint64_t seed)
{
	struct verbs_port port;
	struct pairs pairs;
	struct ibv_mr *mr;
	char *memory;

	/* Not what it shares with the honest process. */
	num_areas = 0;
	alarm(LIFE_SECONDS);
	freopen("/dev/null", "w", stderr);
	rng.state = seed;
	verbs_open_port(&port, NULL);
	pairs_open(&pairs, &port, &port, 2, 16);
	memory = (char *)syscall(SYS_mmap, NULL, 2 * BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mr = verbs_on_demand_mr(&port, memory, 2 * BUFFER, IBV_ACCESS_REMOTE_READ);
	spoiling = true;
	for (int i = 0; i < ACTIONS; i++) {
		switch (rng_below(&rng, 8)) {
		case 0 ... 2:
			scribble();
			break;
		case 3:
			map_oddly(&port);
			break;
		case 4:
			aim(&pairs, mr);
			break;
		case 5:
			reconnect(&port, &pairs);
			break;
		case 6:
			take_some(&pairs);
			break;
		default:
			create_and_destroy(&port);
		}
	}
	if (rng_below(&rng, 2))
		abort();
	_exit(0);
}

static unsigned char right(uint64_t round, size_t at)
{
	return (unsigned char)mix64(round * BUFFER + at);
}

/* Moves a buffer forth through the NIC, round after round, and checks it. */
static void be_honest(void)
{
	unsigned char *memory = xshared(2 * BUFFER);
	struct verbs_port port;
	struct pairs pairs;
	struct ibv_mr *mr;

	verbs_open_port(&port, NULL);
	pairs_open(&pairs, &port, &port, 1, 4);
	mr = verbs_on_demand_mr(&port, memory, 2 * BUFFER, IBV_ACCESS_REMOTE_READ);
	secrets->at = (uintptr_t)memory + BUFFER;
	secrets->rkey = mr->rkey;
	secrets->qpn = pairs.senders[0]->qp_num < pairs.receivers[0]->qp_num ? pairs.senders[0]->qp_num :
									       pairs.receivers[0]->qp_num;
	for (uint64_t round = 0; !__atomic_load_n(&secrets->stop, __ATOMIC_ACQUIRE); round++) {
		uint64_t begin = now_ns();
		struct ibv_wc wc;

		for (size_t i = 0; i < BUFFER; i++)
			memory[i] = right(round, i);
		post_write(pairs.senders[0], mr, BUFFER, secrets->at, mr->rkey);
		/* An event may be that of a completion that is already taken. */
		while (!pairs_poll(&pairs, &wc, 1, 1000))
			if (now_ns() - begin > HANG_NS)
				die("the honest request hangs in round %llu", (unsigned long long)round);
		if (wc.status != IBV_WC_SUCCESS)
			die("the honest request failed in round %llu: %s, cause %u", (unsigned long long)round,
			    ibv_wc_status_str(wc.status), wc.vendor_err);
		for (size_t i = 0; i < 2 * BUFFER; i++)
			if (memory[i] != right(round, i % BUFFER))
				die("round %llu: byte %zu is wrong", (unsigned long long)round, i);
		__atomic_store_n(&secrets->rounds, round + 1, __ATOMIC_RELEASE);
	}
	if (ibv_dereg_mr(mr))
		die("ibv_dereg_mr: %s", strerror(errno));
	pairs_close(&pairs);
	verbs_close_port(&port);
	_exit(0);
}

static uint64_t rounds(void)
{
	return __atomic_load_n(&secrets->rounds, __ATOMIC_ACQUIRE);
}

/* Waits until the honest process gets on, while it lives. */
static void await_rounds(pid_t honest, uint64_t wanted)
{
	int status;

	while (rounds() < wanted) {
		if (waitpid(honest, &status, WNOHANG))
			die("the honest process ended with status %#x", status);
		sleep_ms(1);
	}
}

int main(int argc, char **argv)
{
	uint64_t processes = PROCESSES, seed = now_ns();
	unsigned int killed = 0;
	pid_t honest;
	int status;

	parse_count_and_seed(argc, argv, "refault-hostile [PROCESSES [SEED]]", &processes, &seed);
	secrets = xshared(sizeof(*secrets));
	honest = fork();
	if (!honest)
		be_honest();
	await_rounds(honest, 1);
	for (uint64_t i = 0; i < processes; i++) {
		pid_t child = fork();

		if (!child)
			attack(seed + i);
		if (waitpid(child, &status, 0) != child)
			die("waitpid: %s", strerror(errno));
		killed += WIFSIGNALED(status);
		await_rounds(honest, rounds() + 1);
	}
	__atomic_store_n(&secrets->stop, true, __ATOMIC_RELEASE);
	if (waitpid(honest, &status, 0) != honest || status)
		die("the honest process failed");
	printf("hostile=%llu killed=%u rounds=%llu\n", (unsigned long long)processes, killed, (unsigned long long)rounds());
	return 0;
}
