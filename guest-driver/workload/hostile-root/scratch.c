// SPDX-License-Identifier: Apache-2.0 OR MIT
/* Memory for the devices to find: its physical address, and what is in it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hostile.h"
#include "refault_abi.h"

/* Documentation/admin-guide/mm/pagemap.rst: one quadword for each page, its frame in bits 54:0. */
static uint64_t physical_address(const void *at)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;
	off_t place = (off_t)((uintptr_t)at / BLOCK * sizeof(entry));

	if (fd < 0 || pread(fd, &entry, sizeof(entry), place) != sizeof(entry) || !(entry >> 63))
		die("no physical address: %s", strerror(errno));
	close(fd);
	return (entry & ((UINT64_C(1) << 55) - 1)) * BLOCK;
}

void scratch_open(struct scratch *scratch)
{
	FILE *pages = fopen("/proc/sys/vm/nr_hugepages", "w");
	void *memory;

	if (!pages || fputs("2\n", pages) < 0 || fclose(pages))
		die("no large pages: %s", strerror(errno));
	memory = mmap(NULL, HUGE_BLOCK, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		die("no large page: %s", strerror(errno));
	memset(memory, 0, HUGE_BLOCK);
	*scratch = (struct scratch){ .memory = memory, .physical = physical_address(memory), .length = HUGE_BLOCK };
}

uint64_t scratch_address(const struct scratch *scratch, struct rng *rng)
{
	uint64_t page = scratch->physical + rng_below(rng, scratch->length / BLOCK) * BLOCK;

	return page | (rng_below(rng, 2) ? rng_below(rng, 8) : rng_below(rng, BLOCK));
}

/* None of these is an address of memory that the kernel uses. */
uint64_t odd_value(const struct scratch *scratch, struct rng *rng)
{
	static const uint64_t odd[] = { 0, 1, 2, 3, 7, 8, 16, 63, 64, 255, 256, 4095, 4096, 65535, 1u << 31, UINT32_MAX,
					UINT64_C(1) << 40, UINT64_C(1) << 47, UINT64_C(1) << 63, UINT64_MAX };

	switch (rng_below(rng, 4)) {
	case 0:
		return rng_next(rng) | UINT64_C(1) << 50;
	case 1:
		return odd[rng_below(rng, sizeof(odd) / sizeof(odd[0]))];
	default:
		return scratch_address(scratch, rng);
	}
}

/* A command of the NIC, or a descriptor of the IOMMU's invalidation queue: what it is, then operands. */
static uint64_t first_word(const struct scratch *scratch, struct rng *rng)
{
	uint64_t operands = odd_value(scratch, rng);

	return rng_below(rng, 2) ? (operands & ~UINT64_C(0xff)) | rng_below(rng, 0x90) :
				   (operands & ~UINT64_C(0xf)) | rng_below(rng, 16);
}

void scratch_fill(const struct scratch *scratch, struct rng *rng)
{
	const size_t words = scratch->length / sizeof(uint64_t);

	/* Every page with a command in each slot; in between, entries of tables, which are any words. */
	for (size_t i = 0; i < words; i++)
		scratch->memory[i] = i % (REFAULT_CMD_SLOT_SIZE / sizeof(uint64_t)) ? odd_value(scratch, rng) :
										      first_word(scratch, rng);
}
