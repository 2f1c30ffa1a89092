// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PERIOD_NS	500000000l

static const char *const verdict_names[] = { "pass", "slow", "fail" };
static const char *const verdict_words[] = { "PASS", "SLOW", "FAIL" };

struct control {
	int fd;
	const char *scenario, *mode, *mapping;
	const struct counters *counters;
	uint64_t start;
	bool reporting;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
};

/* A terminal would turn each line end into two characters and buffer whole lines. */
static void make_raw(int fd)
{
	struct termios settings;

	if (tcgetattr(fd, &settings))
		return;
	cfmakeraw(&settings);
	tcsetattr(fd, TCSANOW, &settings);
}

struct control *control_open(const char *path)
{
	struct control *control = xcalloc(1, sizeof(*control));

	control->fd = -1;
	pthread_mutex_init(&control->lock, NULL);
	pthread_cond_init(&control->changed, NULL);
	if (!path)
		return control;
	control->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOCTTY | O_CLOEXEC, 0644);
	if (control->fd < 0)
		die("--control %s: %s", path, strerror(errno));
	make_raw(control->fd);
	return control;
}

void control_subject(struct control *control, const char *scenario, const char *mode, const char *mapping)
{
	control->scenario = scenario;
	control->mode = mode;
	control->mapping = mapping;
}

/* Sends one whole line. Errors are ignored: the host notices when the channel closes. */
static void send_line(struct control *control, const char *line)
{
	size_t left = strlen(line);

	while (control->fd >= 0 && left) {
		ssize_t done = write(control->fd, line, left);

		if (done < 0 && errno != EINTR)
			return;
		line += done > 0 ? done : 0;
		left -= done > 0 ? (size_t)done : 0;
	}
}

/* `text` as a JSON string without its quotes; what does not fit is cut. */
static void escape(const char *text, char *to, size_t size)
{
	size_t n = 0;

	for (; *text && n + 7 < size; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			n += (size_t)snprintf(to + n, size - n, "\\%c", c);
		else if (c < 0x20)
			n += (size_t)snprintf(to + n, size - n, "\\u%04x", c);
		else
			to[n++] = (char)c;
	}
	to[n] = '\0';
}

static void counters_json(const struct control *control, char *to, size_t size)
{
	const struct counters *c = control->counters;

	snprintf(to, size,
		 "\"seconds\":%.3f,\"operations\":%" PRIu64 ",\"writes\":%" PRIu64 ",\"bytes_written\":%" PRIu64
		 ",\"blocks_moved\":%" PRIu64 ",\"bytes_verified\":%" PRIu64 ",\"bytes_wrong\":%" PRIu64
		 ",\"touches\":%" PRIu64 ",\"refused\":%" PRIu64,
		 seconds_since(control->start), c->operations, c->writes, c->bytes_written, c->blocks_moved,
		 c->bytes_verified, c->bytes_wrong, c->touches, c->refused);
}

static void send_event(struct control *control, const char *event, const char *more)
{
	char line[2048];

	snprintf(line, sizeof(line), "{\"event\":\"%s\",\"scenario\":\"%s\",\"mode\":\"%s\",\"mapping\":\"%s\"%s%s}\n", event,
		 control->scenario, control->mode, control->mapping, *more ? "," : "", more);
	send_line(control, line);
}

static void *report_progress(void *argument)
{
	struct control *control = argument;
	char counters[512];
	struct timespec next;

	clock_gettime(CLOCK_REALTIME, &next);
	pthread_mutex_lock(&control->lock);
	while (control->reporting) {
		next.tv_nsec += PERIOD_NS;
		next.tv_sec += next.tv_nsec / 1000000000l;
		next.tv_nsec %= 1000000000l;
		if (pthread_cond_timedwait(&control->changed, &control->lock, &next) == 0)
			continue;
		counters_json(control, counters, sizeof(counters));
		send_event(control, "progress", counters);
	}
	pthread_mutex_unlock(&control->lock);
	return NULL;
}

void control_plan(struct control *control, uint64_t file_bytes, uint32_t qps, double scale, const struct speed *speed,
		  const char *scenarios)
{
	struct utsname system;
	char line[9000], kernel[128];

	uname(&system);
	escape(system.release, kernel, sizeof(kernel));
	snprintf(line, sizeof(line),
		 "{\"event\":\"plan\",\"kernel\":\"%s\",\"file_bytes\":%" PRIu64 ",\"queue_pairs\":%u,\"scale\":%.3f"
		 ",\"speed\":{\"fault_ns\":%.0f,\"copy_rate\":%.0f},\"scenarios\":%s}\n",
		 kernel, file_bytes, qps, scale, speed->fault_ns, speed->copy_rate, scenarios);
	send_line(control, line);
}

void control_begin(struct control *control, const struct counters *counters)
{
	control->counters = counters;
	control->start = now_ns();
	control->reporting = true;
	send_event(control, "begin", "");
	printf("%-12s %-6s %s ...\n", control->scenario, control->mode, control->mapping);
	fflush(stdout);
	if (pthread_create(&control->thread, NULL, report_progress, control))
		die("cannot start a thread");
}

void control_end(struct control *control, enum verdict verdict, const char *reason)
{
	const struct counters *c = control->counters;
	char counters[512], escaped[600], more[1400];

	pthread_mutex_lock(&control->lock);
	control->reporting = false;
	pthread_cond_signal(&control->changed);
	pthread_mutex_unlock(&control->lock);
	pthread_join(control->thread, NULL);

	counters_json(control, counters, sizeof(counters));
	escape(reason, escaped, sizeof(escaped));
	snprintf(more, sizeof(more), "\"result\":\"%s\",\"reason\":\"%s\",%s", verdict_names[verdict], escaped,
		 counters);
	send_event(control, "end", more);
	printf("%-12s %-6s %s %s %6.2f s: %" PRIu64 " writes of %.1f MiB, %" PRIu64 " operations, %" PRIu64
	       " blocks moved, %.1f MiB verified, %" PRIu64 " bytes wrong%s%s\n",
	       control->scenario, control->mode, control->mapping, verdict_words[verdict],
	       seconds_since(control->start), c->writes, (double)c->bytes_written / (double)MIB, c->operations,
	       c->blocks_moved,
	       (double)c->bytes_verified / (double)MIB, c->bytes_wrong, *reason ? ": " : "", reason);
	fflush(stdout);
}

void control_check(struct control *control, const char *mapping, bool pass)
{
	char line[128];

	snprintf(line, sizeof(line), "{\"event\":\"check\",\"mapping\":\"%s\",\"result\":\"%s\"}\n", mapping,
		 pass ? "pass" : "fail");
	send_line(control, line);
	printf("xfs_repair   %s %s\n", mapping, pass ? "PASS" : "FAIL");
}

void control_done(struct control *control, enum verdict verdict)
{
	char line[64];

	snprintf(line, sizeof(line), "{\"event\":\"done\",\"result\":\"%s\"}\n", verdict_names[verdict]);
	send_line(control, line);
}
