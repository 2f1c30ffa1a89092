// SPDX-License-Identifier: Apache-2.0 OR MIT
/* The command and its standard streams, carried over one serial port. The frames are those of
 * vmm/guest/src/relay/frame.rs: a type, a 16-bit little-endian length, and that many bytes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init.h"

enum frame_type {
	FRAME_INPUT = 0x01,
	FRAME_SIZE = 0x02,
	FRAME_REPORT = 0x03,
	FRAME_OUTPUT = 0x11,
	FRAME_ERRORS = 0x12,
	FRAME_TAKEN = 0x13,
};

#define HEADER 3
#define PAYLOAD_MAX 4096

struct relay {
	int port;
	int input;   /* where the command's standard input goes, or -1 */
	int outputs[2]; /* its standard output and standard error, or -1 */
	int stalled;    /* the command does not read fast enough: poll it, not the host */
	uint8_t pending[HEADER + PAYLOAD_MAX]; /* a partly received frame */
	size_t pending_count;
	size_t written; /* bytes of its payload that the command has read */
};

static void send_frame(int port, enum frame_type type, const void *payload, size_t count)
{
	uint8_t frame[HEADER + PAYLOAD_MAX] = { type, count & 0xff, count >> 8 };

	memcpy(frame + HEADER, payload, count);
	write_all(port, frame, HEADER + count);
}

static void close_input(struct relay *relay)
{
	if (relay->input >= 0 && relay->input != relay->outputs[0])
		close(relay->input);
	relay->input = -1;
}

/* Writes a piece of input to the command. Returns 0 if the command has not taken all of it yet. */
static int take_input(struct relay *relay, const uint8_t *bytes, size_t count)
{
	uint8_t taken[4] = { count & 0xff, count >> 8, 0, 0 };

	if (count == 0)
		close_input(relay);
	while (relay->input >= 0 && relay->written < count) {
		ssize_t done = write(relay->input, bytes + relay->written, count - relay->written);

		if (done < 0 && errno == EAGAIN)
			return 0;
		if (done < 0 && errno != EINTR)
			close_input(relay);
		if (done > 0)
			relay->written += done;
	}
	/* A command that no longer reads loses the rest; the host may continue to send. */
	relay->written = 0;
	send_frame(relay->port, FRAME_TAKEN, taken, sizeof(taken));
	return 1;
}

/* The host's terminal has a new size. The command's foreground process group gets SIGWINCH. */
static void take_size(const struct relay *relay, const uint8_t *size)
{
	struct winsize window = { .ws_col = size[0] | size[1] << 8, .ws_row = size[2] | size[3] << 8 };

	/* Without a terminal the streams are pipes, and this fails. */
	if (relay->input >= 0)
		ioctl(relay->input, TIOCSWINSZ, &window);
}

/* The time limit has expired: logs what each CPU does, and which tasks are blocked, in the kernel's log. */
static void report_state(void)
{
	int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	for (const char *key = "lw"; *key; key++)
		while (write(fd, key, 1) < 0 && errno == EINTR)
			;
	close(fd);
}

/* Handles the complete frames among the received bytes. */
static void take_frames(struct relay *relay)
{
	for (;;) {
		const uint8_t *frame = relay->pending;
		size_t length = frame[1] | frame[2] << 8, whole = HEADER + length;

		if (relay->pending_count < HEADER)
			return;
		if (length > PAYLOAD_MAX)
			give_up("a frame of %zu bytes from the host: the port has lost bytes", length);
		if (relay->pending_count < whole)
			return;
		relay->stalled = frame[0] == FRAME_INPUT && !take_input(relay, frame + HEADER, length);
		if (relay->stalled)
			return;
		if (frame[0] == FRAME_SIZE && length == 4)
			take_size(relay, frame + HEADER);
		if (frame[0] == FRAME_REPORT)
			report_state();
		relay->pending_count -= whole;
		memmove(relay->pending, relay->pending + whole, relay->pending_count);
	}
}

static void read_port(struct relay *relay)
{
	ssize_t count = read(relay->port, relay->pending + relay->pending_count,
			     sizeof(relay->pending) - relay->pending_count);

	if (count > 0) {
		relay->pending_count += count;
		take_frames(relay);
	}
}

/* Forwards output of the command. Returns 0 at its end. */
static int read_output(struct relay *relay, int which)
{
	uint8_t bytes[PAYLOAD_MAX];
	ssize_t count = read(relay->outputs[which], bytes, sizeof(bytes));

	if (count < 0 && (errno == EINTR || errno == EAGAIN))
		return 1;
	if (count <= 0) {
		if (relay->input == relay->outputs[which])
			relay->input = -1;
		close(relay->outputs[which]);
		relay->outputs[which] = -1;
		return 0;
	}
	send_frame(relay->port, which == 0 ? FRAME_OUTPUT : FRAME_ERRORS, bytes, count);
	return 1;
}

static void child_streams(const int *pipes, const char *terminal)
{
	if (terminal)
		ioctl(pipes[0], TIOCSCTTY, 0);
	dup2(pipes[0], STDIN_FILENO);
	dup2(pipes[1], STDOUT_FILENO);
	dup2(pipes[2], STDERR_FILENO);
}

static void run_child(const struct job *job, const int *streams, const sigset_t *unblocked)
{
	sigprocmask(SIG_SETMASK, unblocked, NULL);
	setsid();
	child_streams(streams, job->terminal);
	signal(SIGPIPE, SIG_DFL);
	if (job->folder && chdir(job->folder) != 0) {
		dprintf(STDERR_FILENO, "refault: no folder %s in the guest\n", job->folder);
		_exit(STATUS_NOT_FOUND);
	}
	environ = (char **)job->environment;
	execvp(job->arguments[0], job->arguments);
	dprintf(STDERR_FILENO, "refault: cannot run %s in the guest: %s\n", job->arguments[0], strerror(errno));
	_exit(errno == ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_EXECUTABLE);
}

/* Opens one terminal for all three streams. */
static int open_terminal(const char *size, int *streams, struct relay *relay)
{
	struct winsize window = { 0 };
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave;

	if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0)
		return -1;
	slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -1;
	if (sscanf(size, "%hux%hu", &window.ws_col, &window.ws_row) == 2)
		ioctl(master, TIOCSWINSZ, &window);
	streams[0] = streams[1] = streams[2] = slave;
	relay->input = relay->outputs[0] = master;
	relay->outputs[1] = -1;
	return 0;
}

static int open_pipes(int *streams, struct relay *relay)
{
	int input[2], output[2], errors[2];

	if (pipe2(input, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0 || pipe2(errors, O_CLOEXEC) != 0)
		return -1;
	streams[0] = input[0];
	streams[1] = output[1];
	streams[2] = errors[1];
	relay->input = input[1];
	relay->outputs[0] = output[0];
	relay->outputs[1] = errors[0];
	return 0;
}

/* Reaps all children that have ended. Returns 1 if the command is among them. */
static int reap(pid_t command, int *status)
{
	int raw;
	pid_t pid;

	while ((pid = waitpid(-1, &raw, WNOHANG)) > 0) {
		if (pid != command)
			continue;
		*status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
		return 1;
	}
	return 0;
}

/* Forwards bytes until the command has ended and its output has been sent. A process that it left behind may hold a
 * stream open: its end is not awaited. */
static int serve(struct relay *relay, pid_t command, const sigset_t *unblocked)
{
	int status = 0, ended = 0, quiet = 0;

	while (!power_is_wanted() && (!ended || !quiet)) {
		struct pollfd fds[4] = { { relay->stalled ? -1 : relay->port, POLLIN, 0 },
					 { relay->outputs[0], POLLIN, 0 },
					 { relay->outputs[1], POLLIN, 0 },
					 { relay->stalled ? relay->input : -1, POLLOUT, 0 } };
		struct timespec now = { 0 };
		int ready = ppoll(fds, 4, ended ? &now : NULL, unblocked);

		ended = ended || reap(command, &status);
		quiet = 1;
		if (ready <= 0)
			continue;
		if (fds[0].revents && !ended)
			read_port(relay);
		if (fds[3].revents && !ended)
			take_frames(relay);
		if (fds[1].revents && read_output(relay, 0))
			quiet = 0;
		if (fds[2].revents && read_output(relay, 1))
			quiet = 0;
	}
	return status;
}

static void on_child(int signal)
{
	(void)signal;
}

int relay_command(const struct job *job, int port)
{
	struct relay relay = { .port = port, .input = -1, .outputs = { -1, -1 } };
	struct sigaction action = { .sa_handler = on_child };
	sigset_t blocked, unblocked;
	int streams[3], opened;
	pid_t command;

	/* Blocked except in ppoll, so that no child's end is missed. */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	listen_for_power(&blocked);
	sigaction(SIGCHLD, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	opened = job->terminal ? open_terminal(job->terminal, streams, &relay) : open_pipes(streams, &relay);
	if (opened != 0 || !job->arguments[0])
		give_up("the command has no streams or no name: %s", strerror(errno));
	sigprocmask(SIG_BLOCK, &blocked, &unblocked);
	command = fork();
	if (command == 0)
		run_child(job, streams, &unblocked);
	if (command < 0)
		give_up("cannot start the command: %s", strerror(errno));
	fcntl(relay.input, F_SETFL, O_NONBLOCK);
	close(streams[0]);
	if (!job->terminal) {
		close(streams[1]);
		close(streams[2]);
	}
	return serve(&relay, command, &unblocked);
}
