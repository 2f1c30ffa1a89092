// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Of <xfs/xfs_fs.h>, which not every libc has beside it. */
struct exchange_range {
	int32_t file1_fd;
	uint32_t pad;
	uint64_t file1_offset;
	uint64_t file2_offset;
	uint64_t length;
	uint64_t flags;
};

#define IOC_EXCHANGE_RANGE _IOW('X', 129, struct exchange_range)

static void path_of(const struct filesystem *fs, const char *name, char *path, size_t size)
{
	snprintf(path, size, "%s/%s", fs->mount, name);
}

void fs_create(struct filesystem *fs)
{
	/* A stripe of 2 MiB makes the allocator align, and two groups let the small device keep a log. */
	char *const mkfs[] = {
		"mkfs.xfs", "-q", "-f", "-m", "reflink=1", "-i", "exchange=1",
		"-d", "agcount=2,su=2m,sw=1", (char *)fs->device, NULL,
	};

	if (access(fs->device, W_OK))
		die("%s: %s: does the guest have persistent memory?", fs->device, strerror(errno));
	if (run_command(mkfs))
		die("mkfs.xfs %s failed", fs->device);
	fs_mount(fs);
}

void fs_mount(const struct filesystem *fs)
{
	if (mkdir(fs->mount, 0755) && errno != EEXIST)
		die("mkdir %s: %s", fs->mount, strerror(errno));
	if (mount(fs->device, fs->mount, "xfs", 0, "dax=always"))
		die("mount %s on %s with dax=always: %s", fs->device, fs->mount, strerror(errno));
}

void fs_unmount(const struct filesystem *fs)
{
	/* A process that has just died may still hold the mount for an instant. */
	for (int tries = 0; umount(fs->mount); tries++) {
		if (errno != EBUSY || tries == 100)
			die("umount %s: %s", fs->mount, strerror(errno));
		sleep_ms(20);
	}
}

bool fs_check(const struct filesystem *fs)
{
	char *const repair[] = { "xfs_repair", "-n", (char *)fs->device, NULL };
	int null = open("/dev/null", O_WRONLY), saved = dup(STDOUT_FILENO), saved_error = dup(STDERR_FILENO);
	int status;

	fs_unmount(fs);
	fflush(stdout);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	status = run_command(repair);
	dup2(saved, STDOUT_FILENO);
	dup2(saved_error, STDERR_FILENO);
	close(null);
	close(saved);
	close(saved_error);
	fs_mount(fs);
	return status == 0;
}

uint64_t fs_free_bytes(const struct filesystem *fs)
{
	struct statvfs info;

	if (statvfs(fs->mount, &info))
		die("statvfs %s: %s", fs->mount, strerror(errno));
	return info.f_bfree * info.f_frsize;
}

static int open_file(const struct filesystem *fs, const char *name, int flags)
{
	char path[DIRECTORY_MAX + 64];
	int fd;

	path_of(fs, name, path, sizeof(path));
	fd = open(path, O_RDWR | O_CLOEXEC | flags, 0644);
	if (fd < 0)
		die("open %s: %s", path, strerror(errno));
	return fd;
}

int fs_create_file(const struct filesystem *fs, const char *name)
{
	fs_remove(fs, name);
	return open_file(fs, name, O_CREAT | O_EXCL);
}

int fs_open_file(const struct filesystem *fs, const char *name)
{
	return open_file(fs, name, 0);
}

void fs_remove(const struct filesystem *fs, const char *name)
{
	char path[DIRECTORY_MAX + 64];

	path_of(fs, name, path, sizeof(path));
	if (unlink(path) && errno != ENOENT)
		die("unlink %s: %s", path, strerror(errno));
}

/* Of <xfs/xfs_fs.h>, which cannot be included together with <linux/fs.h>. */
struct reserved_blocks {
	uint64_t blocks, available;
};
#define IOC_SET_RESERVED_BLOCKS	_IOWR('X', 114, struct reserved_blocks)

/*
 * XFS reserves up to 8192 blocks that statfs() does not count as free. With that reserve, a file that takes
 * "all" free blocks may still miss those that were just freed.
 */
static void shrink_reserved_blocks(int fd)
{
	struct reserved_blocks few = { .blocks = 64 };

	if (ioctl(fd, IOC_SET_RESERVED_BLOCKS, &few))
		die("XFS_IOC_SET_RESBLKS: %s", strerror(errno));
}

void fs_fill_up(const struct filesystem *fs, const char *name, uint64_t leave)
{
	int fd = fs_create_file(fs, name);
	uint64_t size = 0, step;

	shrink_reserved_blocks(fd);
	/* Freed blocks become free only when the log has been written. */
	syncfs(fd);
	/* In smaller and smaller steps, because not all of the last free bytes can go to files. */
	for (step = 64 * MIB; step >= 64 * KIB; step /= 2)
		while (fs_free_bytes(fs) > leave + step && !fallocate(fd, 0, (off_t)size, (off_t)step))
			size += step;
	close(fd);
}

static void get_attributes(int fd, struct fsxattr *attr)
{
	if (ioctl(fd, FS_IOC_FSGETXATTR, attr))
		die("FS_IOC_FSGETXATTR: %s", strerror(errno));
}

static void set_attributes(int fd, const struct fsxattr *attr)
{
	if (ioctl(fd, FS_IOC_FSSETXATTR, attr))
		die("FS_IOC_FSSETXATTR: %s", strerror(errno));
}

void fs_hint_extent_size(int fd, uint64_t bytes)
{
	struct fsxattr attr;

	get_attributes(fd, &attr);
	attr.fsx_xflags |= FS_XFLAG_EXTSIZE | FS_XFLAG_COWEXTSIZE;
	attr.fsx_extsize = (uint32_t)bytes;
	attr.fsx_cowextsize = (uint32_t)bytes;
	set_attributes(fd, &attr);
}

void fs_unhint_copy_on_write(int fd)
{
	struct fsxattr attr;

	get_attributes(fd, &attr);
	attr.fsx_xflags &= ~(uint32_t)FS_XFLAG_COWEXTSIZE;
	attr.fsx_cowextsize = 0;
	set_attributes(fd, &attr);
}

void fs_write(int fd, const void *data, uint64_t length, uint64_t offset)
{
	const char *from = data;

	while (length) {
		ssize_t done = pwrite(fd, from, length, (off_t)offset);

		if (done <= 0)
			die("pwrite of %llu bytes at %#llx: %s", (unsigned long long)length,
			    (unsigned long long)offset, strerror(errno));
		from += done;
		offset += (uint64_t)done;
		length -= (uint64_t)done;
	}
}

void fs_read(int fd, void *data, uint64_t length, uint64_t offset)
{
	char *to = data;

	while (length) {
		ssize_t done = pread(fd, to, length, (off_t)offset);

		if (done <= 0)
			die("pread of %llu bytes at %#llx: %s", (unsigned long long)length,
			    (unsigned long long)offset, done ? strerror(errno) : "end of file");
		to += done;
		offset += (uint64_t)done;
		length -= (uint64_t)done;
	}
}

void fs_sync(int fd)
{
	if (fsync(fd))
		die("fsync: %s", strerror(errno));
}

void fs_truncate(int fd, uint64_t bytes)
{
	if (ftruncate(fd, (off_t)bytes))
		die("ftruncate to %#llx: %s", (unsigned long long)bytes, strerror(errno));
}

void fs_allocate(int fd, uint64_t offset, uint64_t length)
{
	if (fallocate(fd, 0, (off_t)offset, (off_t)length))
		die("fallocate of %llu bytes: %s", (unsigned long long)length, strerror(errno));
}

void fs_punch(int fd, uint64_t offset, uint64_t length)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length))
		die("fallocate: punching %#llx+%#llx: %s", (unsigned long long)offset,
		    (unsigned long long)length, strerror(errno));
}

void fs_clone(int copy, int fd)
{
	if (ioctl(copy, FICLONE, fd))
		die("FICLONE: %s", strerror(errno));
}

void fs_exchange(int fd, int other, uint64_t offset, uint64_t length)
{
	struct exchange_range args = {
		.file1_fd = other,
		.file1_offset = offset,
		.file2_offset = offset,
		.length = length,
	};

	if (ioctl(fd, IOC_EXCHANGE_RANGE, &args))
		die("XFS_IOC_EXCHANGE_RANGE of %#llx+%#llx: %s", (unsigned long long)offset,
		    (unsigned long long)length, strerror(errno));
}
