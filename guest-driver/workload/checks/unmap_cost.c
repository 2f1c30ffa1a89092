// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * What taking memory away from an on-demand region costs by count: descriptors in the IOMMU's invalidation queue,
 * each batch of which the kernel waits for. The NIC has all pages of a file on persistent memory; then the file is
 * truncated, or the region deregistered. Prints a line for each; exits with 1 if pages were taken away one by one.
 *
 *   refault-unmap-cost [DEVICE [BYTES]]      default: /dev/pmem0 64M
 */
#define _GNU_SOURCE
#include "common/fs.h"
#include "common/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRACING		"/sys/kernel/tracing"
#define EVENT		TRACING "/events/intel_iommu/qi_submit/id"
#define MAX_CPUS	64
#define CHUNK		(16 * MIB)
#define ACCESS		(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_ON_DEMAND)
/* A range takes an IOTLB and a device TLB descriptor for each domain and PASID that may know it. */
#define ALLOWED		16

static int counters[MAX_CPUS], cpus;

static uint64_t event_id(void)
{
	uint64_t id = 0;
	FILE *file;

	if (access(EVENT, R_OK))
		mount("tracefs", TRACING, "tracefs", 0, NULL);
	file = fopen(EVENT, "re");
	if (!file || fscanf(file, "%" SCNu64, &id) != 1)
		die("%s: %s", EVENT, strerror(errno));
	fclose(file);
	return id;
}

/* One counter of submitted descriptors for each CPU. */
static void counters_open(void)
{
	struct perf_event_attr attributes = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attributes),
		.config = event_id(),
	};

	cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
	if (cpus > MAX_CPUS)
		die("more than %d CPUs", MAX_CPUS);
	for (int cpu = 0; cpu < cpus; cpu++) {
		counters[cpu] = (int)syscall(SYS_perf_event_open, &attributes, -1, cpu, -1, 0);
		if (counters[cpu] < 0)
			die("perf_event_open: %s", strerror(errno));
	}
}

static uint64_t descriptors(void)
{
	uint64_t sum = 0, count;

	for (int cpu = 0; cpu < cpus; cpu++) {
		if (read(counters[cpu], &count, sizeof(count)) != sizeof(count))
			die("reading a counter: %s", strerror(errno));
		sum += count;
	}
	return sum;
}

/* Gives the NIC every page of the mapping. */
static void give_all(struct ibv_mr *mr, const char *mapping, uint64_t bytes)
{
	for (uint64_t at = 0; at < bytes; at += CHUNK) {
		uint64_t length = bytes - at < CHUNK ? bytes - at : CHUNK;
		struct ibv_sge sge = { .addr = (uintptr_t)mapping + at, .length = (uint32_t)length, .lkey = mr->lkey };

		if (ibv_advise_mr(mr->pd, IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, IBV_ADVISE_MR_FLAG_FLUSH, &sge, 1))
			die("ibv_advise_mr: %s", strerror(errno));
	}
}

static struct ibv_mr *reg(struct ibv_pd *pd, bool implicit, char *mapping, uint64_t bytes)
{
	struct ibv_mr *mr = implicit ? ibv_reg_mr(pd, NULL, SIZE_MAX, ACCESS) : ibv_reg_mr(pd, mapping, bytes, ACCESS);

	if (!mr)
		die("ibv_reg_mr: %s", strerror(errno));
	return mr;
}

static bool judge(const char *how, bool implicit, uint64_t bytes, uint64_t taken, double seconds)
{
	/* The kernel walks its own page tables in pieces of 2 MiB, and an implicit region has a umem for each. */
	bool good = taken && taken <= ALLOWED * (bytes / HUGE_BLOCK + 1);

	printf("%s - %s, %s region: %" PRIu64 " pages taken away with %" PRIu64 " descriptors in %.3f s\n",
	       good ? "ok" : "NOT OK", how, implicit ? "implicit" : "explicit", bytes / BLOCK, taken, seconds);
	return good;
}

/* Both ways to take pages from the NIC: the file loses them, and the region goes. */
static bool measure(const struct filesystem *fs, struct ibv_pd *pd, bool implicit, uint64_t bytes)
{
	int fd = fs_create_file(fs, "file");
	uint64_t before, start;
	struct ibv_mr *mr;
	char *mapping;
	bool good;

	fs_truncate(fd, bytes);
	mapping = fs_map(fd, bytes, MAPPING_4K);
	mr = reg(pd, implicit, mapping, bytes);
	give_all(mr, mapping, bytes);
	before = descriptors();
	start = now_ns();
	fs_truncate(fd, 0);
	good = judge("truncation", implicit, bytes, descriptors() - before, seconds_since(start));

	fs_truncate(fd, bytes);
	give_all(mr, mapping, bytes);
	before = descriptors();
	start = now_ns();
	if (ibv_dereg_mr(mr))
		die("ibv_dereg_mr: %s", strerror(errno));
	good &= judge("deregistration", implicit, bytes, descriptors() - before, seconds_since(start));
	fs_unmap(mapping, bytes);
	close(fd);
	fs_remove(fs, "file");
	return good;
}

int main(int argc, char **argv)
{
	struct filesystem fs = { .device = argc > 1 ? argv[1] : "/dev/pmem0", .mount = "/mnt", .ours = true };
	uint64_t bytes = 64 * MIB;
	struct verbs_port port;
	bool good;

	if (argc > 2 && !parse_size(argv[2], &bytes))
		die("%s is not a size", argv[2]);
	fs_create(&fs);
	verbs_open_port(&port, NULL);
	counters_open();
	good = measure(&fs, port.pd, false, bytes);
	good &= measure(&fs, port.pd, true, bytes);
	verbs_close_port(&port);
	fs_unmount(&fs);
	return !good;
}
