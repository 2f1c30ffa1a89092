// SPDX-License-Identifier: Apache-2.0 OR MIT
/* From the kernel's first process to the host's command, and back to power-off. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "init.h"

static int control = -1;
static const char *token = "";

/* Writes a line to the kernel's log, which the host keeps, and to the control port, whose lines the user sees. */
static void log_line(const char *format, va_list arguments)
{
	char line[512];
	int length = snprintf(line, sizeof(line), "<4>refault: ");
	int log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	length += vsnprintf(line + length, sizeof(line) - length, format, arguments);
	if (length > (int)sizeof(line) - 1)
		length = sizeof(line) - 1;
	if (write(log >= 0 ? log : STDERR_FILENO, line, length) < 0) {
		/* There is nowhere else to report it. */
	}
	if (log >= 0)
		close(log);
	if (control >= 0)
		dprintf(control, "%s say %s\n", token, line + strlen("<4>refault: "));
}

void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	log_line(format, arguments);
	va_end(arguments);
}

static void power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

void give_up(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	log_line(format, arguments);
	va_end(arguments);
	power_off();
	__builtin_unreachable();
}

void write_all(int fd, const void *bytes, size_t count)
{
	const char *from = bytes;

	while (count > 0) {
		ssize_t done = write(fd, from, count);

		if (done < 0 && errno != EINTR)
			return;
		if (done > 0) {
			from += done;
			count -= done;
		}
	}
}

/* Opens a serial port that passes all bytes unchanged. */
int open_raw_port(const char *path)
{
	struct termios settings;
	int port = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (port < 0)
		return -1;
	if (tcgetattr(port, &settings) == 0) {
		cfmakeraw(&settings);
		settings.c_cflag |= CLOCAL | CREAD;
		cfsetspeed(&settings, B115200);
		tcsetattr(port, TCSAFLUSH, &settings);
	}
	return port;
}

static void bring_up_loopback(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd >= 0) {
		ioctl(fd, SIOCSIFFLAGS, &request);
		close(fd);
	}
}

int main(int count, char **arguments)
{
	static struct job job;
	int busybox, port, status, failed;

	/* Not by the process number: in a PID namespace the first process may be a poweroff. */
	if (strcmp(basename(arguments[0]), "init") != 0)
		return request_power(basename(arguments[0]), count > 1 ? arguments[1] : NULL);

	mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	control = open_raw_port(CONTROL_PORT);
	read_job(&job);
	if (job.token)
		token = job.token;
	if (!job.foreign_kernel) {
		load_modules("/modules/boot");
		load_modules("/modules/guest");
		load_modules("/modules/driver");
		if (job.lent)
			load_modules("/modules/lent");
	}
	load_modules("/refault/modules");
	busybox = open("/bin/busybox", O_PATH | O_CLOEXEC);
	prepare_root(&job);
	sethostname(HOST_NAME, strlen(HOST_NAME));
	mount_shares(&job);
	bring_up_loopback();
	start_network(&job);
	/* While there is only one CPU: enabling events rewrites kernel code. */
	start_trace(&job);
	start_cpus();
	start_ports(&job);

	port = open_raw_port(STREAM_PORT);
	if (port < 0 || control < 0)
		give_up("no serial ports %s and %s: %s", STREAM_PORT, CONTROL_PORT, strerror(errno));
	if (symlink(CONTROL_PORT, "/dev/refault-control") != 0)
		say("no /dev/refault-control: %s", strerror(errno));
	/* The first line end terminates what a port echoed before it was raw. */
	dprintf(control, "\n%s ready\n", token);
	status = relay_command(&job, port);
	if (power_is_wanted())
		end_by_power();
	finish_trace(&job);
	failed = collect_files(&job, busybox);
	tcdrain(port);

	/* Processes that still run are not needed any more; file systems are unmounted cleanly. */
	kill(-1, SIGKILL);
	release_mounts();
	sync();
	if (failed)
		dprintf(control, "%s collect-failed\n", token);
	dprintf(control, "%s exit %d\n", token, status);
	tcdrain(control);
	power_off();
}
