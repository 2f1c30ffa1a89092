/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The kernel's knobs and counters. */
#ifndef STORM_KERNEL_H
#define STORM_KERNEL_H

#include "common/util.h"

/* Writes to a file of proc or sysfs; false if it does not take it. */
bool knob_set(const char *path, const char *format, ...) PRINTF(2, 3);

/* As knob_set(), or the end. */
void knob_must(const char *path, const char *text);

/* A number in a file of sysfs, or -1. */
int64_t knob_get(const char *path);

/* A line of /proc/vmstat. */
uint64_t vmstat(const char *name);

#endif
