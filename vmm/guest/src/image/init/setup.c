// SPDX-License-Identifier: Apache-2.0 OR MIT
/* What must be set up before the command: the job, the kernel's modules, the root file system. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "init.h"

#define ROOT_WAIT_MS 10000
#define MAX_CPUS 256

static void append(char **list, char *item)
{
	size_t count = 0;

	while (list[count])
		count++;
	if (count == MAX_ITEMS)
		give_up("more than %d items of one kind in the job", MAX_ITEMS);
	list[count] = item;
}

static void take_record(struct job *job, char *record)
{
	char *text = record + 1;

	switch (record[0]) {
	case 'a': append(job->arguments, text); break;
	case 'e': append(job->environment, text); break;
	case 'c': append(job->collect, text); break;
	case 'd': job->folder = text; break;
	case 'k': job->token = text; break;
	case 'r': job->root = text; break;
	case 'h': append(job->shares, text); break;
	case 'l': job->lent = 1; break;
	case 'n': job->network = 1; break;
	case 'o': job->results = text; break;
	case 'w': job->ethernet = 1; break;
	case 'f': job->foreign_kernel = 1; break;
	case 't': job->terminal = text; break;
	case 's': job->trace = text; break;
	default: give_up("a record of unknown kind '%c' in the job", record[0]);
	}
}

void read_job(struct job *job)
{
	struct stat info;
	char *text, *record;
	int fd = open("/refault/job", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &info) != 0)
		give_up("no /refault/job in the initramfs: this image is booted by `refault run`");
	text = malloc(info.st_size + 1);
	if (!text || read(fd, text, info.st_size) != info.st_size)
		give_up("the job cannot be read");
	text[info.st_size] = 0;
	close(fd);
	/* To keep the token secret: the initramfs remains accessible later. */
	unlink("/refault/job");
	for (record = text; record < text + info.st_size; record += strlen(record) + 1)
		take_record(job, record);
}

static void load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	/* A module that is built in, or loaded already, is not an error. */
	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST))
		say("cannot load module %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* Loads the modules of a list, which has one path per line, in order. */
void load_modules(const char *list)
{
	char path[512];
	FILE *lines = fopen(list, "re");

	while (lines && fgets(path, sizeof(path), lines)) {
		path[strcspn(path, "\n")] = 0;
		load_module(path);
	}
	if (lines)
		fclose(lines);
}

static void wait_for(const char *path)
{
	struct timespec pause = { .tv_nsec = 1000000 };
	int waited;

	for (waited = 0; access(path, F_OK) != 0; waited++) {
		if (waited == ROOT_WAIT_MS)
			give_up("there is no %s to take the root file system from", path);
		nanosleep(&pause, NULL);
	}
}

/* Tries the read-only file systems that a root may have. */
static int mount_image(const char *device)
{
	if (mount(device, "/image", "erofs", MS_RDONLY, "dax=always") == 0 ||
	    mount(device, "/image", "erofs", MS_RDONLY, NULL) == 0 ||
	    mount(device, "/image", "xfs", MS_RDONLY, NULL) == 0 ||
	    mount(device, "/image", "ext4", MS_RDONLY, NULL) == 0 ||
	    mount(device, "/image", "squashfs", MS_RDONLY, NULL) == 0)
		return 0;
	return -1;
}

static void mount_into_root(const char *name, const char *type, const char *options)
{
	char path[64];

	snprintf(path, sizeof(path), "/root/%s", name);
	mkdir(path, 0755);
	if (mount(type, path, type, MS_NOSUID, options) != 0)
		say("cannot mount %s: %s", path, strerror(errno));
}

/* With a root of the host, the kernel's modules still come from the image. A kernel tree brings its own among the
 * files that the host added. */
static void bind_modules(void)
{
	struct utsname kernel;
	char from[256], path[256];

	uname(&kernel);
	snprintf(path, sizeof(path), "/extra/usr/lib/modules/%s/modules.dep", kernel.release);
	if (access(path, F_OK) == 0)
		return;
	snprintf(from, sizeof(from), "/image/usr/lib/modules/%s", kernel.release);
	snprintf(path, sizeof(path), "/root/usr/lib/modules/%s", kernel.release);
	mkdir(path, 0755);
	if (mount(from, path, NULL, MS_BIND, NULL) != 0)
		say("no modules in %s: %s", path, strerror(errno));
}

static const char *system_root;

/* A folder that exists in the system keeps its owner and mode, even if the host adds files to it. */
static int keep_mode(const char *path, const struct stat *info, int type, struct FTW *walk)
{
	char original[4096];
	struct stat was;

	(void)info;
	(void)walk;
	snprintf(original, sizeof(original), "%s%s", system_root, path + strlen("/extra"));
	if (type == FTW_D && lstat(original, &was) == 0 && S_ISDIR(was.st_mode) &&
	    (chown(path, was.st_uid, was.st_gid) != 0 || chmod(path, was.st_mode & 07777) != 0))
		say("%s: %s", path, strerror(errno));
	return 0;
}

/* Links that udev would create. */
static void link_streams(void)
{
	static const char *const links[][2] = { { "/proc/self/fd", "/dev/fd" },
						{ "/proc/self/fd/0", "/dev/stdin" },
						{ "/proc/self/fd/1", "/dev/stdout" },
						{ "/proc/self/fd/2", "/dev/stderr" } };
	size_t item;

	for (item = 0; item < sizeof(links) / sizeof(*links); item++)
		if (symlink(links[item][0], links[item][1]) != 0 && errno != EEXIST)
			say("no %s: %s", links[item][1], strerror(errno));
}

/* The root is an overlay: writes go to memory, above files that the host added, above the image or a folder of the
 * host. The first root stays mounted below, because its folder /extra is part of the overlay. */
void prepare_root(const struct job *job)
{
	char device[64], options[128];
	int of_host;

	if (!job->root)
		give_up("the job names no root file system");
	snprintf(device, sizeof(device), "/dev/%s", job->root);
	wait_for(device);
	mkdir("/image", 0755);
	mkdir("/memory", 0755);
	mkdir("/root", 0755);
	if (mount_image(device) != 0)
		give_up("the root file system on %s cannot be mounted: %s", device, strerror(errno));
	of_host = mount_host_root(job, "/host");
	system_root = of_host ? "/host" : "/image";
	add_power_commands("/extra", system_root);
	nftw("/extra", keep_mode, 16, FTW_PHYS);
	mount("memory", "/memory", "tmpfs", 0, "mode=0755");
	mkdir("/memory/upper", 0755);
	mkdir("/memory/work", 0755);
	snprintf(options, sizeof(options), "lowerdir=/extra:%s,upperdir=/memory/upper,workdir=/memory/work",
		 system_root);
	if (mount("root", "/root", "overlay", 0, options) != 0)
		give_up("the root file system cannot be made writable: %s", strerror(errno));

	if (of_host) {
		bind_modules();
		/* Files that the host's programs keep there belong to the host. */
		mount_into_root("run", "tmpfs", "mode=0755");
		mount_into_root("tmp", "tmpfs", "mode=1777");
	}
	mount_into_root("proc", "proc", NULL);
	mount_into_root("sys", "sysfs", NULL);
	mount_into_root("dev", "devtmpfs", "mode=0755");
	mount_into_root("dev/shm", "tmpfs", "mode=1777");
	mount_into_root("dev/pts", "devpts", "mode=0620,ptmxmode=0666");
	if (chdir("/root") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0)
		give_up("the new root cannot be entered: %s", strerror(errno));
	link_streams();
}

/* Switches on the CPUs that are present but offline. */
void start_cpus(void)
{
	char path[64];
	int cpu, fd;

	for (cpu = 1; cpu < MAX_CPUS; cpu++) {
		snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online", cpu);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			return;
		if (write(fd, "1", 1) != 1)
			say("cannot start cpu%d: %s", cpu, strerror(errno));
		close(fd);
	}
}

/* Gives the driver's network interfaces their addresses, by a program of the guest. */
void start_ports(const struct job *job)
{
	static char *const arguments[] = { "refault-net", NULL };
	static char *const environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	pid_t child;
	int status = 0;

	if (!job->ethernet)
		return;
	child = fork();
	if (child == 0) {
		execve("/usr/bin/refault-net", arguments, environment);
		_exit(STATUS_NOT_FOUND);
	}
	if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0)
		say("the network interfaces of the NIC are not set up: refault-net failed");
}

/* Unmounts file systems on block devices, the last first, except the root. */
void release_mounts(void)
{
	char *folders[MAX_ITEMS];
	struct mntent *entry;
	size_t count = 0;
	FILE *mounts = setmntent("/proc/mounts", "re");

	while (mounts && count < MAX_ITEMS && (entry = getmntent(mounts)))
		if (strncmp(entry->mnt_fsname, "/dev/", 5) == 0)
			folders[count++] = strdup(entry->mnt_dir);
	if (mounts)
		endmntent(mounts);
	while (count > 0)
		if (umount2(folders[--count], 0) != 0)
			say("cannot unmount %s: %s", folders[count], strerror(errno));
}
