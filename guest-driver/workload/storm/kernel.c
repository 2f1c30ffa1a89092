// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool set(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool taken = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	int error = errno;

	if (fd >= 0)
		close(fd);
	errno = error;
	return taken;
}

bool knob_set(const char *path, const char *format, ...)
{
	char text[128];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return set(path, text);
}

void knob_must(const char *path, const char *text)
{
	if (!set(path, text))
		die("%s does not take %s: %s", path, text, strerror(errno));
}

int64_t knob_get(const char *path)
{
	FILE *file = fopen(path, "re");
	int64_t value = -1;

	if (file && fscanf(file, "%" SCNd64, &value) != 1)
		value = -1;
	if (file)
		fclose(file);
	return value;
}

uint64_t vmstat(const char *name)
{
	FILE *file = fopen("/proc/vmstat", "re");
	char line[128];
	uint64_t value = 0;
	size_t length = strlen(name);

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, length) && line[length] == ' ')
			sscanf(line + length, "%" SCNu64, &value);
	if (file)
		fclose(file);
	return value;
}
