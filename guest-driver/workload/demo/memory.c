// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "memory.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/*
 * Allowances in KiB. A hundred kills that leak a page table page each, or an mm_struct, or a queue's worth
 * of pinned pages, go beyond them; what an idle kernel varies by does not.
 */
#define ALLOW_AVAILABLE		6144
#define ALLOW_UNRECLAIMABLE	1024
#define ALLOW_PAGE_TABLES	192	/* those of the kernel vary by 170 while it starts some hundred processes */
#define ALLOW_IOMMU_TABLES	64
#define ALLOW_STACKS		128
#define ALLOW_PERCPU		128

#define LOOKS			40	/* of 0.3 s or more each, until memory has been returned */

static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	sync();
	if (fd < 0 || write(fd, "3", 1) != 1)
		die("/proc/sys/vm/drop_caches: not writable");
	close(fd);
}

static uint64_t meminfo(const char *text, const char *field)
{
	const char *at = strstr(text, field);
	uint64_t value = 0;

	if (at)
		sscanf(at + strlen(field), " %" SCNu64, &value);
	return value;
}

/* Free pages that the page allocator keeps at hand for each CPU, in KiB: megabytes, and not counted as free. */
static uint64_t kept_by_cpus(void)
{
	FILE *zones = fopen("/proc/zoneinfo", "re");
	uint64_t pages, sum = 0;
	char line[256];

	if (!zones)
		die("/proc/zoneinfo: not readable");
	while (fgets(line, sizeof(line), zones))
		if (sscanf(line, " count: %" SCNu64, &pages) == 1)
			sum += pages;
	fclose(zones);
	return sum * BLOCK / KIB;
}

static void read_memory(struct kernel_state *state)
{
	char text[8192];
	int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	ssize_t length = read(fd, text, sizeof(text) - 1);

	if (length <= 0)
		die("/proc/meminfo: not readable");
	close(fd);
	text[length] = '\0';
	state->available = meminfo(text, "MemAvailable:") + kept_by_cpus();
	state->unreclaimable = meminfo(text, "SUnreclaim:");
	state->page_tables = meminfo(text, "\nPageTables:");
	state->iommu_tables = meminfo(text, "SecPageTables:");
	state->stacks = meminfo(text, "KernelStack:");
	state->percpu = meminfo(text, "Percpu:");
}

/* Empty where iproute2's rdma is missing. */
static void read_rdma(struct kernel_state *state)
{
	FILE *pipe = popen("rdma resource show 2>/dev/null", "re");
	size_t length = pipe ? fread(state->rdma, 1, sizeof(state->rdma) - 1, pipe) : 0;

	state->rdma[length] = '\0';
	if (pipe)
		pclose(pipe);
}

void kernel_state_settled(struct kernel_state *state)
{
	struct kernel_state now;

	memset(state, 0, sizeof(*state));
	/* Deferred freeing (RCU, work queues) takes its time: until nothing more comes back. */
	for (int quiet = 0, looks = 0; quiet < 3 && looks < 30; looks++) {
		drop_caches();
		sleep_ms(100);
		read_memory(&now);
		quiet = now.available > state->available + 256 ? 0 : quiet + 1;
		if (now.available > state->available)
			*state = now;
	}
	*state = now;
	read_rdma(state);
}

static bool within(const char *name, uint64_t before, uint64_t after, uint64_t allowance, char *what,
		   size_t size)
{
	if (after <= before + allowance)
		return true;
	snprintf(what, size, "%s grew from %" PRIu64 " to %" PRIu64 " KiB", name, before, after);
	return false;
}

static bool returned(const struct kernel_state *before, const struct kernel_state *after, uint64_t mapped, char *what,
		     size_t size)
{
	if (strcmp(before->rdma, after->rdma)) {
		snprintf(what, size, "RDMA objects are left: %s", after->rdma);
		return false;
	}
	if (before->available > after->available + ALLOW_AVAILABLE) {
		snprintf(what, size, "available memory fell from %" PRIu64 " to %" PRIu64 " KiB",
			 before->available, after->available);
		return false;
	}
	return within("unreclaimable slab", before->unreclaimable, after->unreclaimable, ALLOW_UNRECLAIMABLE,
		      what, size) &&
	       within("page tables", before->page_tables, after->page_tables, ALLOW_PAGE_TABLES, what, size) &&
	       within("IOMMU tables", before->iommu_tables, after->iommu_tables,
		      ALLOW_IOMMU_TABLES + mapped / HUGE_BLOCK * (BLOCK / KIB), what, size) &&
	       within("kernel stacks", before->stacks, after->stacks, ALLOW_STACKS, what, size) &&
	       within("per-CPU memory", before->percpu, after->percpu, ALLOW_PERCPU, what, size);
}

bool kernel_state_awaited(const struct kernel_state *before, struct kernel_state *after, uint64_t mapped, char *what,
			  size_t size)
{
	for (int looks = 0; looks < LOOKS; looks++) {
		kernel_state_settled(after);
		if (returned(before, after, mapped, what, size))
			return true;
	}
	return false;
}
