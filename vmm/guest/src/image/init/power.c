// SPDX-License-Identifier: Apache-2.0 OR MIT
/* poweroff, reboot and halt: under these names this program sends a request to the guest's first process, which is
 * this program too. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"

/* The signal for each request, as in busybox and sysvinit. */
static const struct request {
	const char *name;
	int signal;
	int command;
} requests[] = {
	{ "poweroff", SIGUSR2, RB_POWER_OFF },
	{ "reboot", SIGTERM, RB_AUTOBOOT },
	{ "halt", SIGUSR1, RB_HALT_SYSTEM },
};

#define REQUESTS (sizeof(requests) / sizeof(*requests))

static volatile sig_atomic_t wanted;

static void on_request(int signal)
{
	wanted = signal;
}

/* In the first process: handles requests. They are delivered only while the `blocked` signals are unblocked. */
void listen_for_power(sigset_t *blocked)
{
	struct sigaction action = { .sa_handler = on_request };
	size_t item;

	for (item = 0; item < REQUESTS; item++) {
		sigaddset(blocked, requests[item].signal);
		sigaction(requests[item].signal, &action, NULL);
	}
}

int power_is_wanted(void)
{
	return wanted;
}

/* Performs the request, with all file systems clean. */
void end_by_power(void)
{
	size_t item;

	kill(-1, SIGKILL);
	release_mounts();
	sync();
	for (item = 0; item < REQUESTS; item++)
		if (requests[item].signal == wanted)
			reboot(requests[item].command);
	for (;;)
		pause();
}

/* Adds the three commands, unless the guest's system has them. `root` is a folder that is laid over its root. */
void add_power_commands(const char *root, const char *system)
{
	char path[128];
	size_t item;

	snprintf(path, sizeof(path), "%s/usr/sbin/poweroff", system);
	if (access(path, F_OK) == 0)
		return;
	mkdir(root, 0755);
	snprintf(path, sizeof(path), "%s/usr", root);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/usr/sbin", root);
	mkdir(path, 0755);
	for (item = 0; item < REQUESTS; item++) {
		snprintf(path, sizeof(path), "%s/usr/sbin/%s", root, requests[item].name);
		if (link("/init", path) != 0)
			say("no %s in the guest", requests[item].name);
	}
}

/* Runs as one of the commands: acts at once with -f, otherwise sends a request. Returns only on failure. */
int request_power(const char *name, const char *option)
{
	size_t item;

	for (item = 0; item < REQUESTS; item++) {
		if (strcmp(requests[item].name, name) != 0)
			continue;
		if (option && strcmp(option, "-f") == 0) {
			sync();
			reboot(requests[item].command);
		} else if (!option && getpid() != 1 && kill(1, requests[item].signal) == 0) {
			for (;;)
				pause();
		}
	}
	fprintf(stderr, "%s: only root may do this, outside a PID namespace; the only option is -f\n", name);
	return 1;
}
