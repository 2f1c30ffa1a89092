// SPDX-License-Identifier: Apache-2.0 OR MIT
/* poweroff, reboot and halt: this program under those names asks the guest's first process, which is this program too. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include "init.h"

/* As busybox and sysvinit have it: what is asked by which signal. */
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

/* In the first process: listens to requests. They come through when `blocked` signals do. */
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

/* Does what was asked for, with all file systems clean. */
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

/* Gives the guest the three commands, where its system has none. `root` is a folder that its root will have. */
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

/* As one of the commands: does it at once with -f, else asks. Returns only if that cannot be. */
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
	fprintf(stderr, "%s: only root may, outside a PID namespace, and there is no option but -f\n", name);
	return 1;
}
