// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * What on-demand regions promise, one check at a time: reads that allocate nothing, pages of 2 MiB, memory that comes
 * and goes under an implicit region, addresses other than the process', refusals. Prints a line for each; exits with 1
 * if one does not hold. Concurrency is left to refault-storm.
 *
 *   refault-odp-check [CGROUP]	the folder of its control group: also checks who pays
 */
#include "common/verbs.h"
#include "common/small_pages.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WRITABLE	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)
#define ON_DEMAND	(WRITABLE | IBV_ACCESS_ON_DEMAND)
#define AREAS		24
#define ROUNDS		8
#define ATTEMPTS	8
#define PIECES		256

static struct verbs_port port;
static struct ibv_cq *cq;
static struct ibv_qp *qps[2];
static unsigned char *staging;		/* pinned, one block */
static struct ibv_mr *staging_mr;
static bool failed;

static void check(bool holds, const char *what)
{
	printf("%s - %s\n", holds ? "ok" : "NOT OK", what);
	failed |= !holds;
}

static void connect_both(void)
{
	for (int i = 0; i < 2; i++)
		if (!verbs_reset_qp(qps[i]))
			die("a queue pair cannot be reset");
	for (int i = 0; i < 2; i++)
		if (!verbs_connect_qp(&port, &port, qps[i], qps[!i]->qp_num))
			die("the queue pairs cannot be connected");
}

/* One RDMA WRITE to its end: from `from` of region `source` to `to` of region `target`. */
static enum ibv_wc_status transfer(struct ibv_mr *source, uint64_t from, struct ibv_mr *target, uint64_t to,
				   uint32_t length)
{
	struct ibv_sge sge = { .addr = from, .length = length, .lkey = source->lkey };
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_RDMA_WRITE,
		.send_flags = IBV_SEND_SIGNALED,
		.sg_list = &sge,
		.num_sge = 1,
		.wr.rdma = { .remote_addr = to, .rkey = target->rkey },
	}, *bad;
	struct ibv_wc wc;
	int count;

	if (ibv_post_send(qps[0], &wr, &bad))
		die("ibv_post_send failed");
	while (!(count = ibv_poll_cq(cq, 1, &wc)))
		;
	if (count < 0)
		die("ibv_poll_cq failed");
	return wc.status;
}

/* The NIC fills a block at `to` with `value`. */
static bool put(struct ibv_mr *target, uint64_t to, unsigned char value)
{
	memset(staging, value, BLOCK);
	return transfer(staging_mr, (uintptr_t)staging, target, to, BLOCK) == IBV_WC_SUCCESS;
}

static bool is_all(const unsigned char *block, unsigned char value)
{
	for (size_t i = 0; i < BLOCK; i++)
		if (block[i] != value)
			return false;
	return true;
}

/* The NIC reads a block at `from`, and it is all `value`. */
static bool get(struct ibv_mr *source, uint64_t from, unsigned char value)
{
	memset(staging, ~value, BLOCK);
	return transfer(source, from, staging_mr, (uintptr_t)staging, BLOCK) == IBV_WC_SUCCESS &&
	       is_all(staging, value);
}

static unsigned char *map(void *where, size_t bytes, int flags)
{
	void *at = mmap(where, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

/* A mapping of small pages, which the kernel does not merge with its neighbours. */
static unsigned char *map_alone(size_t bytes)
{
	unsigned char *at = map(NULL, bytes, 0);

	if (!at || ask_for_small_pages(at, bytes))
		die("no memory");
	return at;
}

static struct ibv_mr *reg(void *at, size_t bytes, int access)
{
	struct ibv_mr *mr = ibv_reg_mr(port.pd, at, bytes, access);

	if (!mr)
		die("ibv_reg_mr: %s", strerror(errno));
	return mr;
}

/* KiB of the mapping at `at` that are the process' own, not the zero page. */
static long anonymous_kib(const void *at)
{
	FILE *smaps = fopen("/proc/self/smaps", "r");
	bool inside = false;
	long kib = -1;
	char line[256];

	while (smaps && fgets(line, sizeof(line), smaps)) {
		uintptr_t start, end;

		if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &start, &end) == 2)
			inside = (uintptr_t)at >= start && (uintptr_t)at < end;
		else if (inside && sscanf(line, "Anonymous: %ld kB", &kib) == 1)
			break;
	}
	if (smaps)
		fclose(smaps);
	return kib;
}

static void check_reading(void)
{
	size_t bytes = 16 * BLOCK;
	unsigned char *at = map_alone(bytes);
	struct ibv_mr *mr;
	bool right = true;

	mr = reg(at, bytes, ON_DEMAND);
	for (size_t i = 0; i < bytes; i += BLOCK)
		right &= get(mr, (uintptr_t)at + i, 0);
	check(right && anonymous_kib(at) == 0, "reading untouched memory allocates no page");
	right = put(mr, (uintptr_t)at + BLOCK, 0x5a) && is_all(at + BLOCK, 0x5a) && is_all(at, 0);
	check(right && anonymous_kib(at) == 4, "writing after reading makes a page of its own");
	ibv_dereg_mr(mr);
	munmap(at, bytes);
}

static void check_huge_pages(void)
{
	size_t bytes = 4 * HUGE_BLOCK;
	unsigned char *at = map(NULL, bytes, MAP_HUGETLB);
	struct ibv_mr *mr;
	bool right = true;

	if (!at) {
		check(false, "huge pages: vm.nr_hugepages must be 4 or more");
		return;
	}
	mr = reg(at, bytes, ON_DEMAND | IBV_ACCESS_HUGETLB);
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < bytes; i += HUGE_BLOCK / 4)
			right &= put(mr, (uintptr_t)at + i, (unsigned char)(1 + round + i / (HUGE_BLOCK / 4)));
		for (size_t i = 0; i < bytes; i += HUGE_BLOCK / 4)
			right &= is_all(at + i, (unsigned char)(1 + round + i / (HUGE_BLOCK / 4)));
		right &= madvise(at + HUGE_BLOCK, HUGE_BLOCK, MADV_DONTNEED) == 0;
		right &= get(mr, (uintptr_t)at + HUGE_BLOCK, 0);
		right &= is_all(at, (unsigned char)(1 + round));
	}
	check(right, "several pages of 2 MiB, written, dropped and written again");
	ibv_dereg_mr(mr);
	munmap(at, bytes);
}

/* Memory under an implicit region is unmapped, and other memory mapped in its place. */
static void check_coming_and_going(struct ibv_mr *all)
{
	size_t bytes = AREAS * HUGE_BLOCK;
	unsigned char *at = map(NULL, bytes, MAP_NORESERVE);
	bool right = true;

	if (!at)
		die("no memory");
	for (unsigned int round = 0; round < ROUNDS; round++) {
		for (size_t i = 0; i < bytes; i += HUGE_BLOCK)
			right &= put(all, (uintptr_t)at + i, (unsigned char)(1 + round)) &&
				 is_all(at + i, (unsigned char)(1 + round));
		if (munmap(at, bytes) || map(at, bytes, MAP_NORESERVE | MAP_FIXED_NOREPLACE) != at)
			die("the memory cannot be replaced");
		for (size_t i = 0; i < bytes; i += HUGE_BLOCK)
			right &= get(all, (uintptr_t)at + i, 0);
	}
	check(right, "memory replaced under an implicit region, again and again");
	munmap(at, bytes);
	check(!put(all, (uintptr_t)at, 1), "memory that is gone is refused");
	connect_both();
}

static void check_own_addresses(void)
{
	size_t bytes = 3 * BLOCK;
	unsigned char *at = map(NULL, bytes, 0);
	/* The kernel wants the same place within a page. */
	struct ibv_mr *mr = at ? ibv_reg_mr_iova(port.pd, at + 100, 2 * BLOCK, 0x10000 + 100, ON_DEMAND) :
				 NULL;

	check(mr && put(mr, 0x10000 + 150, 0x77) && is_all(at + 150, 0x77) && at[149] == 0 &&
		      at[150 + BLOCK] == 0,
	      "addresses that are not the process' own");
	if (mr)
		ibv_dereg_mr(mr);
	munmap(at, bytes);
}

static int advise(enum ibv_advise_mr_advice advice, uint64_t address, uint64_t length, uint32_t key)
{
	struct ibv_sge sge = { .addr = address, .length = (uint32_t)length, .lkey = key };

	return ibv_advise_mr(port.pd, advice, IBV_ADVISE_MR_FLAG_FLUSH, &sge, 1);
}

static void check_advice(void)
{
	unsigned char *at = map_alone(4 * BLOCK);
	struct ibv_mr *mr = reg(at, 4 * BLOCK, ON_DEMAND), *read_only = reg(at, BLOCK, IBV_ACCESS_ON_DEMAND);
	uint64_t address = (uintptr_t)at;

	check(!advise(IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, address, 4 * BLOCK, mr->lkey) &&
		      anonymous_kib(at) == 16, "advice to prefetch for writing is followed");
	check(advise(IBV_ADVISE_MR_ADVICE_PREFETCH, address, 1, mr->lkey ^ 0xff) == ENOENT,
	      "advice for an unknown key: ENOENT");
	check(advise(IBV_ADVISE_MR_ADVICE_PREFETCH, (uintptr_t)staging, 1, staging_mr->lkey) == EINVAL,
	      "advice for a pinned region: EINVAL");
	check(advise(IBV_ADVISE_MR_ADVICE_PREFETCH, address, 5 * BLOCK, mr->lkey) == EINVAL,
	      "advice beyond the region: EINVAL");
	check(advise(IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, address, 1, read_only->lkey) == EPERM,
	      "advice to write where that is not allowed: EPERM");
	ibv_dereg_mr(read_only);
	ibv_dereg_mr(mr);
	munmap(at, 4 * BLOCK);
}

/* Whether a page is in the process' page table. */
static bool is_present(const unsigned char *page)
{
	FILE *pagemap = fopen("/proc/self/pagemap", "r");
	uint64_t entry = 0;

	if (!pagemap || fseeko(pagemap, (off_t)((uintptr_t)page / BLOCK * sizeof(entry)), SEEK_SET) ||
	    fread(&entry, sizeof(entry), 1, pagemap) != 1)
		die("/proc/self/pagemap cannot be read");
	fclose(pagemap);
	return entry >> 63;
}

/* How far advice, which is followed in order, has been followed by now. */
static size_t present_bytes(const unsigned char *at, size_t bytes)
{
	size_t from = 0, to = bytes / BLOCK;

	while (from < to) {
		size_t middle = (from + to) / 2;

		if (is_present(at + middle * BLOCK))
			from = middle + 1;
		else
			to = middle;
	}
	return from * BLOCK;
}

/* Time for advice that was not cancelled to get on. */
static bool stands_still(const unsigned char *at, size_t bytes)
{
	size_t before;

	sleep_ms(200);
	before = present_bytes(at, bytes);
	sleep_ms(200);
	return before < bytes && present_bytes(at, bytes) == before;
}

/*
 * A region is deregistered while advice for it is being followed, which cancels the rest soon. On a busy machine all of
 * it may be followed before, but not each time.
 */
static void check_unfinished_advice(void)
{
	size_t bytes = 1UL << 30;
	bool cut = false;

	for (int attempt = 0; attempt < ATTEMPTS && !cut; attempt++) {
		unsigned char *at = map(NULL, bytes, MAP_NORESERVE);
		struct ibv_sge sge = { .addr = (uintptr_t)at, .length = (uint32_t)bytes };
		struct ibv_mr *mr;

		if (!at || ask_for_small_pages(at, bytes))
			die("no memory");
		mr = reg(at, bytes, ON_DEMAND);
		sge.lkey = mr->lkey;
		if (ibv_advise_mr(port.pd, IBV_ADVISE_MR_ADVICE_PREFETCH, 0, &sge, 1) || ibv_dereg_mr(mr))
			die("a region cannot be advised about, or not deregistered");
		cut = stands_still(at, bytes);
		munmap(at, bytes);
	}
	check(cut, "deregistering a region cancels its unfinished advice");
}

/* The NIC writes and reads at both ends of a region, and in its middle, though most of it will never be used. */
static void check_long_region(size_t bytes, const char *what)
{
	unsigned char *at = map(NULL, bytes + BLOCK, MAP_NORESERVE);
	const size_t places[] = { 0, bytes / 2, bytes - BLOCK };
	bool right = true;

	if (!at)
		die("no addresses");
	for (int own = 0; own < 2; own++) {
		unsigned char *start = at + BLOCK;	/* Not where a table would begin. */
		uint64_t first = own ? 0x10000 : (uintptr_t)start;
		struct ibv_mr *mr = ibv_reg_mr_iova(port.pd, start, bytes, first, ON_DEMAND);

		if (!mr)
			die("a region of %zu bytes: %s", bytes, strerror(errno));
		for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
			unsigned char *page = start + places[i];
			uint64_t to = first + places[i];

			right &= get(mr, to, 0) && put(mr, to, (unsigned char)(i + 1)) &&
				 is_all(page, (unsigned char)(i + 1));
			right &= madvise(page, BLOCK, MADV_DONTNEED) == 0 && get(mr, to, 0);
		}
		ibv_dereg_mr(mr);
	}
	check(right, what);
	munmap(at, bytes + BLOCK);
}

/* The CPU may write to such a mapping, and on x86 also read it; hmm_range_fault() requires PROT_READ. */
static void check_write_only(void)
{
	unsigned char *at = mmap(NULL, BLOCK, PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct ibv_mr *mr;

	if (at == MAP_FAILED)
		die("no memory");
	at[0] = 1;
	mr = reg(at, BLOCK, ON_DEMAND);
	check(!put(mr, (uintptr_t)at, 2), "a mapping with PROT_WRITE alone is refused");
	connect_both();
	check(mprotect(at, BLOCK, PROT_READ | PROT_WRITE) == 0 && put(mr, (uintptr_t)at, 2) && is_all(at, 2),
	      "the same mapping is accepted once it is readable");
	ibv_dereg_mr(mr);
	munmap(at, BLOCK);
}

/* Bytes that the kernel keeps for the control group, without the processes' page tables. */
static long kernel_bytes(const char *group)
{
	long value, kernel = -1, tables = 0;
	char path[300], name[100];
	FILE *stat;

	snprintf(path, sizeof(path), "%s/memory.stat", group);
	stat = fopen(path, "r");
	while (stat && fscanf(stat, "%99s %ld", name, &value) == 2) {
		if (!strcmp(name, "kernel"))
			kernel = value;
		if (!strcmp(name, "pagetables"))
			tables = value;
	}
	if (!stat || kernel < 0)
		die("%s cannot be read", path);
	fclose(stat);
	return kernel - tables;
}

/* Each piece of 2 MiB costs a table of 4 KiB, and the process gets the zero page for it, which costs nothing. */
static void check_cost(struct ibv_mr *all, const char *group)
{
	size_t bytes = PIECES * HUGE_BLOCK;
	unsigned char *at = map(NULL, bytes, MAP_NORESERVE);
	long before = kernel_bytes(group);
	bool right = true;

	if (!at || ask_for_small_pages(at, bytes))
		die("no memory");
	for (size_t i = 0; i < bytes; i += HUGE_BLOCK)
		right &= get(all, (uintptr_t)at + i, 0);
	check(right && kernel_bytes(group) - before >= (long)(PIECES * BLOCK),
	      "the process' control group pays for its tables");
	munmap(at, bytes);
}

int main(int argc, char **argv)
{
	struct ibv_mr *all;

	setvbuf(stdout, NULL, _IOLBF, 0);
	verbs_open_port(&port, NULL);
	cq = ibv_create_cq(port.context, 4, NULL, NULL, 0);
	staging = aligned_alloc(BLOCK, BLOCK);
	if (!cq || !staging)
		die("no completion queue, or no memory");
	staging_mr = reg(staging, BLOCK, WRITABLE);
	for (int i = 0; i < 2; i++)
		qps[i] = verbs_create_qp(&port, cq, 4);
	connect_both();
	all = reg(NULL, SIZE_MAX, ON_DEMAND);

	check_reading();
	check_huge_pages();
	check_coming_and_going(all);
	check_own_addresses();
	check_advice();
	check_unfinished_advice();
	check_long_region(1UL << 41, "a region of 2 TiB, used at both ends and in its middle");
	check_long_region(1UL << 46, "a region of 64 TiB, in the same way");
	check_write_only();
	if (argc > 1)
		check_cost(all, argv[1]);

	for (int i = 0; i < 2; i++)
		ibv_destroy_qp(qps[i]);
	ibv_dereg_mr(all);
	ibv_dereg_mr(staging_mr);
	ibv_destroy_cq(cq);
	verbs_close_port(&port);
	return failed;
}
