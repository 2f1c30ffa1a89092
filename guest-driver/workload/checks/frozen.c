// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A page that the kernel cannot bring in for now harms only the process that it belongs to. One process writes into
 * another's mapping of a frozen file. While that page fault is open, the owner deregisters the region and closes the
 * device, and both must return. Meanwhile a third user opens the device, moves data, and closes it. Commands on the
 * command line run then, too. Afterwards the file system is thawed.
 *
 *   refault-frozen [--seconds N] [COMMAND...]
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/others.h"
#include "common/pairs.h"

#define BYTES (64 * BLOCK)

/* What the owner of the file tells the writer, and the other way round. */
struct meeting {
	uint32_t owner_qpn, writer_qpn;
	uint32_t rkey;
	uint64_t at;
};

static struct meeting *meeting;
static int to_owner[2], to_writer[2];

static void say(int *pipe, char what)
{
	if (write(pipe[1], &what, 1) != 1)
		die("the other process is gone");
}

/* False if nothing comes: a hang. */
static bool hear(int *pipe)
{
	struct pollfd fd = { .fd = pipe[0], .events = POLLIN };
	char what;

	return poll(&fd, 1, (int)(HANG_NS / 1000000)) == 1 && read(pipe[0], &what, 1) == 1;
}

/* A mapped doorbell page keeps the device open until the process has lost its memory, which waits for the fault. */
static void unmap_doorbells(void)
{
	unsigned long start, end;
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "r");

	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "uverbs") && sscanf(line, "%lx-%lx", &start, &end) == 2)
			munmap((void *)start, end - start);
	if (maps)
		fclose(maps);
}

static struct ibv_qp *make_qp(struct verbs_port *port, struct ibv_cq **cq)
{
	verbs_open_port(port, NULL);
	*cq = ibv_create_cq(port->context, 16, NULL, NULL, 0);
	if (!*cq)
		die("ibv_create_cq: %s", strerror(errno));
	return verbs_create_qp(port, *cq, 4);
}

static void connect_to(struct verbs_port *port, struct ibv_qp *qp, uint32_t peer)
{
	if (!verbs_connect_qp(port, port, qp, peer))
		die("the queue pair cannot be connected: %s", strerror(errno));
}

/* Owns the mapping that is written to; gives it up while the fault is open. */
static void owner(const struct filesystem *fs)
{
	struct verbs_port port;
	struct ibv_cq *cq;
	struct ibv_qp *qp = make_qp(&port, &cq);
	int fd = fs_open_file(fs, "file");
	char *mapping = fs_map(fd, BYTES, MAPPING_4K);
	struct ibv_mr *mr = verbs_on_demand_mr(&port, mapping, BYTES, 0);

	*meeting = (struct meeting){ .owner_qpn = qp->qp_num, .rkey = mr->rkey, .at = (uintptr_t)mapping };
	say(to_writer, 'r');
	if (!hear(to_owner))
		die("the writer is gone");
	connect_to(&port, qp, meeting->writer_qpn);
	unmap_doorbells();
	say(to_writer, 'c');

	if (!hear(to_owner))
		die("the writer is gone");
	if (ibv_dereg_mr(mr))
		die("ibv_dereg_mr: %s", strerror(errno));
	say(to_writer, 'd');
	close(port.context->cmd_fd);
	say(to_writer, 'x');
	_exit(0);
}

/* Whether a thread of the kernel waits for the file system to be thawed. */
static bool kernel_waits(void)
{
	DIR *processes = opendir("/proc");
	char path[300], function[100];
	struct dirent *entry;
	bool found = false;

	while (processes && !found && (entry = readdir(processes))) {
		int fd;

		snprintf(path, sizeof(path), "/proc/%s/wchan", entry->d_name);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			continue;
		memset(function, 0, sizeof(function));
		found = read(fd, function, sizeof(function) - 1) > 0 && strstr(function, "percpu_rwsem_wait");
		close(fd);
	}
	if (processes)
		closedir(processes);
	return found;
}

static void freeze(const struct filesystem *fs, bool freeze)
{
	int fd = open(fs->mount, O_RDONLY | O_DIRECTORY);

	if (fd < 0 || ioctl(fd, freeze ? FIFREEZE : FITHAW, 0))
		die("%s the file system: %s", freeze ? "freezing" : "thawing", strerror(errno));
	close(fd);
}

/* While the file system is frozen. */
static bool harm_stays_local(int argc, char **argv)
{
	bool ok;

	say(to_owner, 'g');
	ok = check(hear(to_writer), "the region is deregistered");
	ok &= check(hear(to_writer), "the device is closed");
	ok &= check(others_work_elsewhere(), "others open the device, move data and close it");
	ok &= check(others_work_elsewhere(), "and once more");
	for (int i = 0; i < argc; i++)
		ok &= check(system(argv[i]) == 0, argv[i]);
	return ok;
}

static bool writer(const struct filesystem *fs, unsigned int seconds, int argc, char **argv)
{
	struct verbs_port port;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_mr *source;
	bool ok;

	if (!hear(to_writer))
		die("the owner is gone");
	qp = make_qp(&port, &cq);
	source = verbs_on_demand_mr(&port, xshared(BLOCK), BLOCK, 0);
	meeting->writer_qpn = qp->qp_num;
	connect_to(&port, qp, meeting->owner_qpn);
	say(to_owner, 'q');
	if (!hear(to_writer))
		die("the owner is gone");

	freeze(fs, true);
	post_write(qp, source, BLOCK, meeting->at, meeting->rkey);
	for (uint64_t begin = now_ns(); !kernel_waits(); sleep_ms(10))
		if (now_ns() - begin > HANG_NS)
			die("no page fault reached the kernel");
	ok = harm_stays_local(argc, argv);
	for (; seconds; seconds--)
		sleep_ms(1000);
	freeze(fs, false);
	return ok;
}

int main(int argc, char **argv)
{
	struct filesystem fs = { .device = "/dev/pmem0", .mount = "/tmp/frozen" };
	unsigned int seconds = 0;
	pid_t child;
	bool ok;
	int fd;

	argc--, argv++;
	if (argc > 1 && !strcmp(argv[0], "--seconds")) {
		seconds = (unsigned int)atoi(argv[1]);
		argc -= 2, argv += 2;
	}
	meeting = xshared(sizeof(*meeting));
	if (pipe(to_owner) || pipe(to_writer))
		die("pipe: %s", strerror(errno));
	fs_create(&fs);
	fd = fs_create_file(&fs, "file");
	fs_allocate(fd, 0, BYTES);
	fs_sync(fd);
	close(fd);
	child = fork();
	if (!child)
		owner(&fs);
	ok = writer(&fs, seconds, argc, argv);
	waitpid(child, NULL, 0);
	ok &= check(argc || others_work(), "all is well afterwards");
	fs_unmount(&fs);
	return !ok;
}
