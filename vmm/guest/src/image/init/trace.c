// SPDX-License-Identifier: Apache-2.0 OR MIT
/* The guest kernel's trace of its fault handling: events in an instance of its tracer, on CLOCK_MONOTONIC, for each
 * CPU the first ones that fit its buffer; and readings of that clock with the NIC's. The host parses the files in
 * FOLDER: vmm/observe/src/trace/guest. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"

#define FOLDER		"/refault-stages"
#define TRACEFS		"/sys/kernel/tracing"
#define INSTANCE	TRACEFS "/instances/refault"
#define DEVICES		"/sys/class/infiniband"
#define PAGE		4096
#define PATH_SIZE	512

/* Page requests: the kernel has no events at these points, so probes are used. Their arguments are resolved by the
 * kernel's own type information, so that no layout is assumed. */
#define REQUEST(from)	" pasid=" from "pasid:u32 group=" from "grpid:u32 address=" from "addr:u64"
static const char *const probes[] = {
	"p:refault_guest/taken iommu_report_device_fault" REQUEST("evt->fault.prm."),
	"p:refault_guest/handling iommu_sva_handle_iopf",
	"p:refault_guest/handled iopf_group_response" REQUEST("group->last_fault.fault.prm."),
};

static const struct event {
	const char *name; /* with its system */
	const char *filter;
} events[] = {
	{ "refault_guest/taken", NULL },
	{ "refault_guest/handling", NULL },
	{ "refault_guest/handled", NULL },
	/* Only descriptors of type 9: page group responses. */
	{ "intel_iommu/qi_submit", "qw0 & 8 && qw0 & 1" },
	{ "refault/fault_taken", NULL },
	{ "refault/fault_handling", NULL },
	{ "refault/fault_handled", NULL },
};

/* Returns 0 or an error number. */
static int write_text(const char *path, const char *text, int flags)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644), error = 0;

	if (fd < 0)
		return errno;
	if (write(fd, text, strlen(text)) < 0)
		error = errno;
	close(fd);
	return error;
}

/* Records one line for the host about what cannot be traced. */
static void trouble(const char *what, int error)
{
	char line[2 * PATH_SIZE];

	snprintf(line, sizeof(line), "%s: %s\n", what, strerror(error));
	write_text(FOLDER "/trouble", line, O_CREAT | O_APPEND);
}

static void set(const char *file, const char *text)
{
	char path[PATH_SIZE];
	int error;

	snprintf(path, sizeof(path), INSTANCE "/%s", file);
	error = write_text(path, text, 0);
	if (error)
		trouble(path, error);
}

static void enable(const struct event *event)
{
	char path[PATH_SIZE];

	snprintf(path, sizeof(path), INSTANCE "/events/%s", event->name);
	if (access(path, F_OK) != 0)
		return trouble(event->name, errno);
	snprintf(path, sizeof(path), "events/%s/filter", event->name);
	if (event->filter)
		set(path, event->filter);
	snprintf(path, sizeof(path), "events/%s/enable", event->name);
	set(path, "1");
}

/* Appends the contents of `path` to FOLDER/`name`, a page at a time. */
static void keep(const char *path, const char *name)
{
	char target[PATH_SIZE], bytes[PAGE];
	int from = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), to;
	ssize_t count;

	snprintf(target, sizeof(target), FOLDER "/%s", name);
	to = open(target, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (from < 0 || to < 0)
		trouble(path, errno);
	while (from >= 0 && to >= 0 && (count = read(from, bytes, sizeof(bytes))) > 0)
		write_all(to, bytes, count);
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
}

/* Reads both clocks from the first device that has one. */
static void keep_clocks(void)
{
	DIR *devices = opendir(DEVICES);
	struct dirent *entry;
	char path[PATH_SIZE];

	while (devices && (entry = readdir(devices))) {
		snprintf(path, sizeof(path), DEVICES "/%s/device_clock", entry->d_name);
		if (access(path, R_OK) == 0) {
			keep(path, "clocks");
			break;
		}
	}
	if (devices)
		closedir(devices);
}

void start_trace(const struct job *job)
{
	size_t index;
	int error;

	if (!job->trace)
		return;
	mkdir(FOLDER, 0755);
	if (mount("tracefs", TRACEFS, "tracefs", MS_NOSUID, NULL) != 0 && errno != EBUSY)
		return trouble(TRACEFS, errno);
	if (mkdir(INSTANCE, 0700) != 0)
		return trouble(INSTANCE, errno);
	set("trace_clock", "mono");
	set("options/overwrite", "0");
	set("buffer_size_kb", job->trace);
	for (index = 0; index < sizeof(probes) / sizeof(probes[0]); index++) {
		error = write_text(TRACEFS "/kprobe_events", probes[index], O_APPEND);
		if (error)
			trouble(probes[index], error);
	}
	for (index = 0; index < sizeof(events) / sizeof(events[0]); index++)
		enable(&events[index]);
	keep_clocks();
}

static void keep_formats(void)
{
	char path[PATH_SIZE];
	size_t index;

	for (index = 0; index < sizeof(events) / sizeof(events[0]); index++) {
		snprintf(path, sizeof(path), INSTANCE "/events/%s/format", events[index].name);
		if (access(path, R_OK) == 0)
			keep(path, "formats");
	}
}

/* The events of each CPU, and the number of lost ones. */
static void keep_buffers(void)
{
	DIR *cpus = opendir(INSTANCE "/per_cpu");
	char path[PATH_SIZE], name[64];
	struct dirent *entry;

	while (cpus && (entry = readdir(cpus))) {
		if (strncmp(entry->d_name, "cpu", 3) != 0 || strlen(entry->d_name) > 16)
			continue;
		snprintf(path, sizeof(path), INSTANCE "/per_cpu/%s/stats", entry->d_name);
		snprintf(name, sizeof(name), "%.16s.stats", entry->d_name);
		keep(path, name);
		snprintf(path, sizeof(path), INSTANCE "/per_cpu/%s/trace_pipe_raw", entry->d_name);
		snprintf(name, sizeof(name), "%.16s.raw", entry->d_name);
		keep(path, name);
	}
	if (cpus)
		closedir(cpus);
}

void finish_trace(const struct job *job)
{
	if (!job->trace)
		return;
	/* The events stay enabled: other CPUs may be running the code that disabling would rewrite. */
	if (access(INSTANCE, F_OK) == 0)
		set("tracing_on", "0");
	keep_clocks();
	keep_formats();
	keep_buffers();
}
