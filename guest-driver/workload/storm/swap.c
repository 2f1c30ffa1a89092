// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `swap`: pages go out to compressed memory under DMA, which must bring them in again. The swap device is taken
 * away and given back in between, which brings everything in at once.
 */
#define _GNU_SOURCE
#include "kernel.h"
#include "run.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <unistd.h>

#define DEVICE		"/dev/zram0"
#define PAGES		512u
#define OFF_EVERY	16u

static void swap_on(void)
{
	if (swapon(DEVICE, 0))
		die("swapon %s: %s", DEVICE, strerror(errno));
}

static void swap_off(void)
{
	if (swapoff(DEVICE))
		die("swapoff %s: %s", DEVICE, strerror(errno));
}

static void prepare(struct disturbance *self)
{
	char *const modprobe[] = { "modprobe", "zram", NULL };
	char *const mkswap[] = { "sh", "-c", "mkswap " DEVICE " >/dev/null", NULL };

	(void)self;
	if (access(DEVICE, F_OK) && run_command(modprobe))
		die("no zram: is the module in the image?");
	knob_must("/sys/block/zram0/disksize", "128M");
	if (run_command(mkswap))
		die("mkswap %s failed", DEVICE);
	swap_on();
}

static void disturb(struct disturbance *self)
{
	const struct arena *arena = &self->storm->arena;
	uint64_t first = rng_below(&self->rng, arena->bytes / BLOCK - PAGES);
	char *start = arena->base + first * BLOCK;

	if (self->count % OFF_EVERY == OFF_EVERY - 1) {
		swap_off();
		swap_on();
	}
	/* Without memory it fails after paging out the rest. */
	if (madvise(start, PAGES * BLOCK, MADV_PAGEOUT) && errno != ENOMEM && errno != EINVAL)
		die("MADV_PAGEOUT: %s", strerror(errno));
	self->effect += pages_look(start, PAGES, NULL);
	storm_await(self->storm, 12);
}

static void finish(struct disturbance *self)
{
	(void)self;
	swap_off();
	knob_must("/sys/block/zram0/reset", "1");
}

const struct disturber disturber_swap = {
	.name = "swap",
	.what = "pages swapped out to zram under DMA",
	.unit = "pages_swapped",
	.goal = 40,
	.prepare = prepare,
	.disturb = disturb,
	.finish = finish,
};
