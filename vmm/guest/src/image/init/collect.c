// SPDX-License-Identifier: Apache-2.0 OR MIT
/* Files for the host: a tar archive on a memory region that the host reads when the guest has ended. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init.h"

static void run_tar(const struct job *job, int busybox)
{
	char device[64];
	char *arguments[MAX_ITEMS + 8] = { "tar", "-c", "-f", device, "-C", "/" };
	size_t count = 6, item;

	snprintf(device, sizeof(device), "/dev/%s", job->results);
	for (item = 0; job->collect[item]; item++) {
		const char *path = job->collect[item];

		while (*path == '/')
			path++;
		arguments[count++] = (char *)path;
	}
	fexecve(busybox, arguments, (char **)job->environment);
	_exit(STATUS_NOT_FOUND);
}

/* The archive must be in memory before the machine ends, not in the block device's cache. */
static int flush(const char *name)
{
	char device[64];
	int fd, result;

	snprintf(device, sizeof(device), "/dev/%s", name);
	fd = open(device, O_WRONLY | O_CLOEXEC);
	result = fd < 0 ? -1 : fsync(fd);
	if (fd >= 0)
		close(fd);
	return result;
}

/* Returns 0 when every file the host asked for is in the archive. */
int collect_files(const struct job *job, int busybox)
{
	int status = -1;
	pid_t child;

	if (!job->results)
		return 0;
	child = fork();
	if (child == 0)
		run_tar(job, busybox);
	while (child > 0 && waitpid(child, &status, 0) != child)
		;
	return status != 0 || flush(job->results) != 0;
}
