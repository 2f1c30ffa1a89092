// SPDX-License-Identifier: Apache-2.0 OR MIT
/* Putting the devices back as the kernel has set them up: what a root would do that wants its machine back. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "hostile.h"

#define WORDS	(CONFIG_BYTES / sizeof(uint32_t))

static const size_t events[] = { UNIT_FAULT_EVENT, UNIT_COMPLETION_EVENT, UNIT_PAGE_EVENT };

struct saved {
	uint32_t config[WORDS];
	uint32_t events[3][4];
	uint64_t root, page_requests;
};

static void read_config(const struct targets *targets, uint32_t *words)
{
	if (pread(targets->config, words, CONFIG_BYTES, 0) != CONFIG_BYTES)
		die("configuration space cannot be read: %s", strerror(errno));
}

struct saved *save_registers(const struct targets *targets)
{
	struct saved *saved = xcalloc(1, sizeof(*saved));

	read_config(targets, saved->config);
	for (unsigned int i = 0; i < 3; i++)
		for (unsigned int word = 0; word < 4; word++)
			saved->events[i][word] = (uint32_t)window_read(&targets->unit, events[i] + 4 * word, 4);
	saved->root = window_read(&targets->unit, UNIT_RTADDR, 8);
	saved->page_requests = window_read(&targets->unit, UNIT_PQA, 8);
	return saved;
}

/*
 * From the end on: capabilities, then BARs, then the command register. Words that read as they should are written, too,
 * if there is something in them: a host may keep a state of its own, as QEMU does for power management, which a reset of
 * the function does not change.
 */
static void restore_config(const struct targets *targets, const struct saved *saved)
{
	uint32_t now[WORDS];

	read_config(targets, now);
	for (size_t i = WORDS; i-- > 0;)
		if ((saved->config[i] || now[i]) &&
		    pwrite(targets->config, &saved->config[i], sizeof(now[i]), (off_t)(i * sizeof(now[i]))) < 0)
			die("configuration space cannot be written: %s", strerror(errno));
}

/* Starts an invalidation by a register of 64 bits, a global one, and waits for it. */
static void invalidate(const struct window *unit, size_t at, uint64_t granularity)
{
	uint64_t start = now_ns();

	window_write(unit, at, UINT64_C(1) << 63 | granularity, 8);
	while (window_read(unit, at, 8) >> 63)
		if (now_ns() - start > HANG_NS)
			die("NOT OK - the invalidation at %#zx hangs", at);
}

static void restore_unit(const struct window *unit, const struct saved *saved)
{
	for (unsigned int i = 0; i < 3; i++)
		for (unsigned int word = 4; word-- > 0;)
			window_write(unit, events[i] + 4 * word, saved->events[i][word], 4);
	/* An empty queue: what was in the wrong one is lost. */
	window_write(unit, UNIT_PQA, saved->page_requests, 8);
	window_write(unit, UNIT_PQH, window_read(unit, UNIT_PQT, 8), 8);
	window_write(unit, UNIT_PRS, UINT32_MAX, 4);
	window_write(unit, UNIT_RTADDR, saved->root, 8);
	window_write(unit, UNIT_GCMD, UNIT_GCMD_TE | UNIT_GCMD_QIE | UNIT_GCMD_SRTP, 4);
	invalidate(unit, UNIT_CCMD, UINT64_C(1) << 61);
	/* IOTLB_REG is eight bytes after IVA_REG, whose place ECAP.IRO gives in units of 16 bytes. */
	invalidate(unit, (window_read(unit, UNIT_ECAP, 8) >> 8 & 0x3ff) * 16 + 8, UINT64_C(1) << 60);
}

void restore_registers(const struct targets *targets, const struct saved *saved)
{
	restore_config(targets, saved);
	restore_unit(&targets->unit, saved);
}
