/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Init of refault's guest. Linked statically: it starts before there is any other file system. */
#ifndef REFAULT_INIT_H
#define REFAULT_INIT_H

#include <signal.h>
#include <stddef.h>

#define MAX_ITEMS 512
/* The host name in the shell's prompt. */
#define HOST_NAME "refault"

/* What the host wants to run: /refault/job, records of a letter, text and NUL. See vmm/src/run/job.rs. */
struct job {
	char *arguments[MAX_ITEMS + 1];
	char *environment[MAX_ITEMS + 1];
	char *collect[MAX_ITEMS + 1]; /* files to return to the host */
	char *shares[MAX_ITEMS + 1];  /* the host's folders: "TAG ro|rw PATH" */
	const char *folder;
	const char *root;     /* block device of the root file system */
	const char *results;  /* block device for these files */
	int foreign_kernel;   /* the modules of the image do not match it */
	int lent;             /* QEMU provides devices: load their modules */
	int network;          /* one of these devices is a network interface */
	int ethernet;         /* the driver has network interfaces to set up */
	const char *terminal; /* "COLUMNSxROWS", when the command gets a terminal */
	const char *token;    /* prefix of our lines to the host, secret from other programs */
	const char *trace;    /* KiB of trace buffer per CPU, if fault handling is to be traced */
};

/* The serial ports for the host, besides the console. */
#define STREAM_PORT "/dev/ttyS1"
#define CONTROL_PORT "/dev/ttyS2"

/* Exit statuses as in a shell. */
#define STATUS_NOT_EXECUTABLE 126
#define STATUS_NOT_FOUND 127

void read_job(struct job *job);
void load_modules(const char *list);
void prepare_root(const struct job *job);
void release_mounts(void);
void start_cpus(void);
int mount_host_root(const struct job *job, const char *path);
void mount_shares(const struct job *job);
void start_network(const struct job *job);
void start_ports(const struct job *job);
int relay_command(const struct job *job, int port);
int collect_files(const struct job *job, int busybox);
void listen_for_power(sigset_t *blocked);
int power_is_wanted(void);
void end_by_power(void) __attribute__((noreturn));
void add_power_commands(const char *root, const char *system);
int request_power(const char *name, const char *option);
void start_trace(const struct job *job);
void finish_trace(const struct job *job);

int open_raw_port(const char *path);
void write_all(int fd, const void *bytes, size_t count);
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void give_up(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
