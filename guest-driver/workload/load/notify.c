// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "notify.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static bool wait_for_line(int fd, const char *line, unsigned int wait_ms)
{
	uint64_t deadline = now_ns() + wait_ms * UINT64_C(1000000), now;
	size_t length = 0;
	char got[256];

	while ((now = now_ns()) < deadline) {
		struct pollfd input = { fd, POLLIN, 0 };
		int ready = poll(&input, 1, (int)((deadline - now) / 1000000 + 1));

		if (ready < 0 && errno != EINTR)
			return false;
		if (ready <= 0)
			continue;
		if (read(fd, got + length, 1) != 1)
			return false;
		if (got[length] == '\n') {
			got[length] = '\0';
			if (!strcmp(got, line))
				return true;
			length = 0;
		} else if (length < sizeof(got) - 1) {
			length++;
		}
	}
	return false;
}

static bool wait_for_answer(struct host *host, int fd, const char *line)
{
	if (!host->wait_ms || wait_for_line(fd, line, host->wait_ms))
		return host->wait_ms;
	fprintf(stderr,
		"%s: no answer to \"%s\" within %u ms: going on, but the host may count what follows as before it\n",
		host->path, line, host->wait_ms);
	host->wait_ms = 0;
	return false;
}

bool host_notify(struct host *host, const char *line)
{
	bool answered = false;
	char text[256];
	int fd, length;

	if (!host->path)
		return false;
	length = snprintf(text, sizeof(text), "%s\n", line);
	fd = open(host->path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		die("%s: %s", host->path, strerror(errno));
	/* An answer that an earlier program did not wait for is not ours. */
	tcflush(fd, TCIFLUSH);
	if (write(fd, text, (size_t)length) != length)
		die("%s: %s", host->path, strerror(errno));
	if (isatty(fd)) {
		tcdrain(fd);
		answered = wait_for_answer(host, fd, line);
	}
	close(fd);
	return answered;
}
