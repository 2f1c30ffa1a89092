/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The filesystem under test, and what the scenarios do to its files. Every call ends the program if it fails
 * for a reason that no scenario tests. */
#ifndef COMMON_FS_H
#define COMMON_FS_H

#include "util.h"

#define DIRECTORY_MAX 200

struct filesystem {
	const char *device;		/* block device of the persistent memory */
	char mount[DIRECTORY_MAX];	/* where it is mounted */
	bool ours;			/* made and mounted by this program: may be remounted */
};

/* Size of the mappings a file gets: the VA is 2 MiB aligned to the file, or deliberately is not. */
enum mapping_mode {
	MAPPING_4K,
	MAPPING_2M,
};

/* mkfs.xfs with reflink and exchange-range and 2 MiB aligned extents; mounted with dax=always. */
void fs_create(struct filesystem *fs);
void fs_mount(const struct filesystem *fs);
void fs_unmount(const struct filesystem *fs);

/* Unmounts and lets xfs_repair look for blocks with two owners and the like: true if it finds nothing. */
bool fs_check(const struct filesystem *fs);

/* Bytes that can still be allocated. */
uint64_t fs_free_bytes(const struct filesystem *fs);

/* Opens `name` on the filesystem, created anew. */
int fs_create_file(const struct filesystem *fs, const char *name);
int fs_open_file(const struct filesystem *fs, const char *name);
void fs_remove(const struct filesystem *fs, const char *name);

/* Allocates all but `leave` bytes to a file of its own, so that freed blocks have few places to go. */
void fs_fill_up(const struct filesystem *fs, const char *name, uint64_t leave);

/* Asks for allocations in aligned units of `bytes`, for new extents and for copy-on-write. */
void fs_hint_extent_size(int fd, uint64_t bytes);

/* Copy-on-write as the filesystem does it by itself. */
void fs_unhint_copy_on_write(int fd);

/* Maps the whole file shared and writable, aligned as `mode` wants it. */
char *fs_map(int fd, uint64_t bytes, enum mapping_mode mode);
void fs_unmap(char *mapping, uint64_t bytes);

/* Bytes of this process' mapping that one page table entry of 2 MiB maps. */
uint64_t fs_huge_mapped(const char *mapping, uint64_t bytes);

void fs_write(int fd, const void *data, uint64_t length, uint64_t offset);
void fs_read(int fd, void *data, uint64_t length, uint64_t offset);
void fs_sync(int fd);
void fs_truncate(int fd, uint64_t bytes);
void fs_allocate(int fd, uint64_t offset, uint64_t length);
void fs_punch(int fd, uint64_t offset, uint64_t length);

/* Makes the file `copy` share all blocks of the file `fd`. */
void fs_clone(int copy, int fd);

/* Exchanges the extents of [offset, offset + length) of two files. */
void fs_exchange(int fd, int other, uint64_t offset, uint64_t length);

#endif
