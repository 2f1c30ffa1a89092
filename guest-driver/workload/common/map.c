// SPDX-License-Identifier: Apache-2.0 OR MIT
/* How the file is mapped, and with which page size the kernel really mapped it. */
#define _GNU_SOURCE
#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef PAGEMAP_SCAN	/* Linux 6.7 */
struct page_region {
	uint64_t start, end, categories;
};
struct pm_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN	_IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_PRESENT	(1 << 3)
#define PAGE_IS_HUGE	(1 << 6)
#endif

/*
 * DAX can map 2 MiB with one entry only where file offset and address agree modulo 2 MiB. So for 4 KiB
 * mappings the address is one small page off, whatever the extents are like.
 */
char *fs_map(int fd, uint64_t bytes, enum mapping_mode mode)
{
	uint64_t span = bytes + 2 * HUGE_BLOCK, skew = mode == MAPPING_4K ? BLOCK : 0;
	char *area = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *start, *mapping;

	if (area == MAP_FAILED)
		die("reserving %llu bytes of addresses: %s", (unsigned long long)span, strerror(errno));
	start = (char *)(((uintptr_t)area + HUGE_BLOCK - 1) & ~(uintptr_t)(HUGE_BLOCK - 1)) + skew;
	mapping = mmap(start, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	if (mapping == MAP_FAILED)
		die("mmap of the file: %s", strerror(errno));
	munmap(area, (size_t)(start - area));
	munmap(start + bytes, (size_t)(area + span - (start + bytes)));
	return mapping;
}

void fs_unmap(char *mapping, uint64_t bytes)
{
	if (munmap(mapping, bytes))
		die("munmap: %s", strerror(errno));
}

uint64_t fs_huge_mapped(const char *mapping, uint64_t bytes)
{
	struct page_region regions[64];
	struct pm_scan_arg scan = {
		.size = sizeof(scan),
		.start = (uintptr_t)mapping,
		.end = (uintptr_t)mapping + bytes,
		.vec = (uintptr_t)regions,
		.vec_len = 64,
		.category_mask = PAGE_IS_HUGE | PAGE_IS_PRESENT,
		.return_mask = PAGE_IS_HUGE,
	};
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t huge = 0;
	int count;

	if (fd < 0)
		die("/proc/self/pagemap: %s", strerror(errno));
	while (scan.start < scan.end && (count = ioctl(fd, PAGEMAP_SCAN, &scan)) >= 0) {
		for (int i = 0; i < count; i++)
			huge += regions[i].end - regions[i].start;
		scan.start = scan.walk_end;
	}
	close(fd);
	return huge;
}
