// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `fsync`: each call write-protects what is dirty, so the next write by the device faults again and reaches the
 * filesystem, which updates the modification time. Over a wire the writer makes each record durable itself, by a FLUSH.
 */
#define _GNU_SOURCE
#include "run.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#define PROBES	4	/* rounds with the stream stopped, in which the modification time is looked at */

static bool modified_after(int fd, const struct timespec *then)
{
	struct stat info;

	if (fstat(fd, &info))
		die("fstat: %s", strerror(errno));
	return info.st_mtim.tv_sec > then->tv_sec ||
	       (info.st_mtim.tv_sec == then->tv_sec && info.st_mtim.tv_nsec > then->tv_nsec);
}

static uint64_t round_touches(const struct run *run)
{
	uint64_t units = run->layout.file_bytes / run_fault_unit(run);

	return units / 2 < 100 ? units / 2 : 100;
}

static void let_it_write(struct run *run)
{
	uint64_t start = now_ns(), touches = run->counters->touches;

	while (run->counters->touches - touches < round_touches(run) && now_ns() - start < 1000000000ull &&
	       !stream_broken(run->stream))
		sleep_ms(2);
}

/*
 * With nothing in flight the file is synced: now every page is clean and write-protected. The first write
 * that is acknowledged afterwards must have changed the modification time.
 */
static void probe(struct run *run)
{
	struct stat info;
	uint64_t writes, start = now_ns();

	run_quiesce(run);
	fs_sync(run->fd);
	if (fstat(run->fd, &info))
		die("fstat: %s", strerror(errno));
	writes = run->counters->writes;
	stream_new_epoch(run->stream);
	stream_resume(run->stream);
	while (run->counters->writes == writes && now_ns() - start < HANG_NS && !stream_broken(run->stream))
		sleep_ms(1);
	if (!modified_after(run->fd, &info.st_mtim))
		run_fail(run, "a write after fsync did not reach the filesystem: the modification time has not changed");
}

/* The probes come first, and count. */
static double progress(const struct run *run, uint64_t round)
{
	return fmin(run_progress(run, run->counters->touches, 1300), (double)round / (PROBES + 1));
}

static void fsync_loop(struct run *run)
{
	for (uint64_t round = 0; run_go_on(run, progress(run, round)); round++) {
		if (round < PROBES)
			probe(run);
		let_it_write(run);
		fs_sync(run->fd);
		stream_new_epoch(run->stream);
		run->counters->operations++;
	}
}

const struct scenario scenario_fsync = {
	.name = "fsync",
	.what = "each fsync write-protects, and the next write faults again",
	.flush = true,
	.weight = 1.2,
	.run = fsync_loop,
};
