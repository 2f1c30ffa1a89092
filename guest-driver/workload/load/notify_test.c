// SPDX-License-Identifier: Apache-2.0 OR MIT
/* Tests of the lines to the host alone, with a pseudoterminal in place of the serial port. Needs no guest. */
#define _GNU_SOURCE
#include "notify.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static int failures;

static void expect(bool holds, const char *rule)
{
	printf("%s %s\n", holds ? "ok  " : "FAIL", rule);
	failures += !holds;
}

/* The host's end of the port, and the guest's, which init keeps open and raw. */
struct port {
	int host, guest;
	char path[64];
};

static void port_open(struct port *port)
{
	struct termios settings;

	port->host = posix_openpt(O_RDWR | O_NOCTTY);
	if (port->host < 0 || grantpt(port->host) || unlockpt(port->host) ||
	    ptsname_r(port->host, port->path, sizeof(port->path)))
		die("no pseudoterminal: %s", strerror(errno));
	port->guest = open(port->path, O_RDWR | O_NOCTTY);
	if (port->guest < 0 || tcgetattr(port->guest, &settings))
		die("%s: %s", port->path, strerror(errno));
	cfmakeraw(&settings);
	tcsetattr(port->guest, TCSANOW, &settings);
}

static void port_close(struct port *port)
{
	close(port->guest);
	close(port->host);
}

static void say(const struct port *port, const char *text)
{
	if (write(port->host, text, strlen(text)) != (ssize_t)strlen(text))
		die("the host cannot write: %s", strerror(errno));
}

/* A host that handles lines late. */
struct late_host {
	struct port port;
	const char *first;	/* what it sends before the answer */
	atomic_bool handled;
	char line[64];
};

static void *handle_late(void *argument)
{
	struct late_host *host = argument;
	size_t length = 0;

	while (read(host->port.host, host->line + length, 1) == 1 && host->line[length] != '\n')
		length++;
	say(&host->port, host->first);
	/* Time for a program that does not wait to go on. */
	sleep_ms(100);
	atomic_store(&host->handled, true);
	say(&host->port, host->line);
	return NULL;
}

static void late_host_rules(const char *first, const char *rule)
{
	struct late_host host = { .first = first };
	struct pollfd left = { .events = POLLIN };
	struct host known;
	pthread_t thread;
	bool answered;

	port_open(&host.port);
	/* Left by an earlier program. */
	say(&host.port, "load-begin\n");
	left.fd = host.port.guest;
	if (poll(&left, 1, -1) != 1)
		die("%s: %s", host.port.path, strerror(errno));
	known = (struct host){ host.port.path, (unsigned int)(HANG_NS / 1000000) };
	if (pthread_create(&thread, NULL, handle_late, &host))
		die("cannot start a thread");
	answered = host_notify(&known, "load-begin");
	expect(answered && atomic_load(&host.handled), rule);
	pthread_join(thread, NULL);
	expect(!strcmp(host.line, "load-begin\n"), "and got the line");
	port_close(&host.port);
}

static void silent_host_rules(void)
{
	struct port port;
	struct host host;

	port_open(&port);
	host = (struct host){ port.path, 50 };
	expect(!host_notify(&host, "load-begin"), "a host that never answers is not waited for forever");
	expect(!host.wait_ms, "and not waited for again");
	expect(!host_notify(&host, "load-end"), "though it gets further lines");
	port_close(&port);
}

static void other_path_rules(void)
{
	char path[] = "/tmp/refault-notify-XXXXXX", text[32] = "";
	struct host none = { NULL, 1000 }, file = { path, 1000 };
	int fd = mkstemp(path);

	expect(!host_notify(&none, "load-begin") && none.wait_ms, "without a host there is nothing to wait for");
	expect(!host_notify(&file, "load-begin") && file.wait_ms, "a file does not answer, and is not asked to");
	expect(read(fd, text, sizeof(text) - 1) == 11 && !strcmp(text, "load-begin\n"), "but has the line");
	close(fd);
	unlink(path);
}

int main(void)
{
	late_host_rules("", "the program goes on when the host has handled the line, not before");
	late_host_rules("load-end\nload-beginning\nload\n", "other lines are no answer");
	silent_host_rules();
	other_path_rules();
	return failures != 0;
}
