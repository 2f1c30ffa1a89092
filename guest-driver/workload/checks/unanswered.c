// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A page of a file system in user space whose server never answers, and a process that is stopped with page faults
 * open. One process maps a file of a FUSE server that answers everything but reads, and has the NIC read from the
 * mapping. Then it is stopped. Meanwhile others open the device, move data and close it. It is killed while it is
 * stopped, then the server: both end, and all is well.
 *
 *   refault-unanswered
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/others.h"

#define MOUNT	"/tmp/unanswered"
#define BYTES	(16 * BLOCK)
/* Smaller than FUSE_MIN_READ_BUFFER the kernel refuses to read into. */
#define ROOM	(128 * KIB)
#define FILE_ID	2
#define SECONDS	UINT64_C(3600)	/* for which the kernel may remember names and attributes */

/* How far the processes have come. */
struct progress {
	bool mounted;
	uint64_t reads;		/* that the server has not answered */
	bool posted;
};

static struct progress *progress;

static void reply(int device, uint64_t unique, int error, const void *body, size_t length)
{
	struct fuse_out_header header = {
		.len = (uint32_t)(sizeof(header) + length), .error = -error, .unique = unique };
	char message[sizeof(header) + 256];

	memcpy(message, &header, sizeof(header));
	if (length)
		memcpy(message + sizeof(header), body, length);
	/* The asker may be gone. */
	if (write(device, message, header.len) < 0 && errno != ENOENT)
		die("the FUSE device does not take a reply: %s", strerror(errno));
}

static struct fuse_attr attributes(uint64_t id)
{
	return (struct fuse_attr){ .ino = id, .size = id == FILE_ID ? BYTES : 0, .blksize = BLOCK, .nlink = 1,
				   .mode = id == FILE_ID ? S_IFREG | 0600 : S_IFDIR | 0700 };
}

/* Answers whatever it takes to open and map the only file. */
static void serve_one(int device, const struct fuse_in_header *request)
{
	struct fuse_init_out init = { .major = 7, .minor = 31, .max_write = ROOM / 2, .time_gran = 1 };
	struct fuse_attr_out attr = { .attr_valid = SECONDS, .attr = attributes(request->nodeid) };
	struct fuse_entry_out entry = { .nodeid = FILE_ID, .entry_valid = SECONDS, .attr_valid = SECONDS,
					.attr = attributes(FILE_ID) };
	struct fuse_open_out open = { .open_flags = FOPEN_KEEP_CACHE };

	switch (request->opcode) {
	case FUSE_INIT:
		reply(device, request->unique, 0, &init, sizeof(init));
		break;
	case FUSE_GETATTR:
		reply(device, request->unique, 0, &attr, sizeof(attr));
		break;
	case FUSE_LOOKUP:
		reply(device, request->unique, 0, &entry, sizeof(entry));
		break;
	case FUSE_OPEN:
		reply(device, request->unique, 0, &open, sizeof(open));
		break;
	case FUSE_READ:
		__atomic_fetch_add(&progress->reads, 1, __ATOMIC_RELEASE);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		reply(device, request->unique, ENOSYS, NULL, 0);
	}
}

static void serve(void)
{
	static char request[ROOM] __attribute__((aligned(8)));
	int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char options[100];

	if (device < 0)
		die("/dev/fuse: %s", strerror(errno));
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
	if (mount("unanswered", MOUNT, "fuse", MS_NOSUID | MS_NODEV, options))
		die("mounting " MOUNT ": %s", strerror(errno));
	__atomic_store_n(&progress->mounted, true, __ATOMIC_RELEASE);
	for (;;) {
		ssize_t length = read(device, request, sizeof(request));

		if (length > 0)
			serve_one(device, (const struct fuse_in_header *)request);
		else if (errno != EINTR && errno != ENOENT)
			_exit(0);
	}
}

/* Has the NIC read a page that never comes, and write pages that do. */
static void own(void)
{
	struct verbs_port port;
	struct pairs pairs;
	int fd = open(MOUNT "/file", O_RDWR);
	char *file = fd < 0 ? MAP_FAILED : mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct ibv_mr *missing, *mr;

	if (file == MAP_FAILED || memory == MAP_FAILED)
		die("no mappings: %s", strerror(errno));
	verbs_open_port(&port, NULL);
	pairs_open(&pairs, &port, &port, 2, BYTES / BLOCK);
	missing = verbs_on_demand_mr(&port, file, BYTES, 0);
	mr = verbs_on_demand_mr(&port, memory, BYTES, 0);
	post_write(pairs.senders[0], missing, BLOCK, (uintptr_t)memory, mr->rkey);
	for (size_t at = BLOCK; at < BYTES; at += BLOCK)
		post_write(pairs.senders[1], mr, BLOCK, (uintptr_t)memory + at, mr->rkey);
	__atomic_store_n(&progress->posted, true, __ATOMIC_RELEASE);
	for (;;)
		pause();
}

static pid_t start(void (*body)(void))
{
	pid_t child = fork();

	if (child < 0)
		die("fork: %s", strerror(errno));
	if (!child) {
		/* A server that is left over keeps its mount. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body();
	}
	return child;
}

static bool is_mounted(void)
{
	return __atomic_load_n(&progress->mounted, __ATOMIC_ACQUIRE);
}

static bool is_faulting(void)
{
	return __atomic_load_n(&progress->posted, __ATOMIC_ACQUIRE) && __atomic_load_n(&progress->reads, __ATOMIC_ACQUIRE);
}

static void await(bool (*what)(void), const char *goal, pid_t child)
{
	uint64_t begin = now_ns();

	for (; !what(); sleep_ms(5))
		if (now_ns() - begin > HANG_NS || waitpid(child, NULL, WNOHANG))
			die("a process ended, or hangs, before %s", goal);
}

/* Whether the process has been stopped by a signal. */
static bool stops(pid_t child)
{
	int status;

	kill(child, SIGSTOP);
	return waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status);
}

int main(void)
{
	pid_t server, owner;
	int status;
	bool ok;

	progress = xshared(sizeof(*progress));
	if (mkdir(MOUNT, 0700) && errno != EEXIST)
		die("mkdir " MOUNT ": %s", strerror(errno));
	server = start(serve);
	await(is_mounted, "the file system was mounted", server);
	owner = start(own);
	await(is_faulting, "its page was read", owner);
	ok = check(others_work_elsewhere(), "others work while a page is not answered");
	ok &= check(stops(owner), "the owner is stopped");
	ok &= check(others_work_elsewhere(), "others work while it is stopped");
	ok &= check(others_work_elsewhere(), "and once more");
	kill(owner, SIGKILL);
	ok &= check(others_work_elsewhere(), "others work when it is killed");
	kill(server, SIGKILL);
	ok &= check(ends(server, &status), "the server ends");
	ok &= check(ends(owner, &status), "the owner ends");
	ok &= check(others_work(), "all is well afterwards");
	if (umount2(MOUNT, MNT_DETACH))
		die("umount " MOUNT ": %s", strerror(errno));
	return !ok;
}
