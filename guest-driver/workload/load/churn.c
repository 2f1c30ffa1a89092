// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * What happens to the target's pages while the device uses them, at random times.
 *
 *   evict		MADV_PAGEOUT where there is swap; else MADV_DONTNEED, and their content is lost
 *   move		copy-on-write: a child shares them, and the parent touches each
 *   write-protect	a child shares them for a moment: until the next write they may only be read
 *
 * Only the pages in question are shared; all others are kept from children.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "load.h"

#define MOST_PAGES 4096

struct load_churn {
	struct load *load;
	pthread_t thread;
	atomic_bool stop;
	struct rng rng;
	bool has_swap;
	uint64_t page, pages, count;
};

static bool swap_is_there(void)
{
	FILE *swaps = fopen("/proc/swaps", "r");
	char line[256];
	int lines = 0;

	while (swaps && fgets(line, sizeof(line), swaps))
		lines++;
	if (swaps)
		fclose(swaps);
	return lines > 1;
}

/* Returns early when the thread is to stop. */
static void pause_for(struct load_churn *churn, double seconds)
{
	uint64_t until = now_ns() + (uint64_t)(seconds * 1e9), now;

	while (!atomic_load(&churn->stop) && (now = now_ns()) < until)
		usleep((useconds_t)((until - now < 20000000 ? until - now : 20000000) / 1000 + 1));
}

static void advise(uint8_t *at, uint64_t bytes, int advice)
{
	if (madvise(at, bytes, advice))
		die("madvise(%d): %s", advice, strerror(errno));
}

static void evict(struct load_churn *churn, uint64_t first, uint64_t bytes)
{
	if (!churn->has_swap)
		return load_target_drop(churn->load, first, bytes);
	/* Without room it fails after paging out the rest. */
	if (madvise(churn->load->target + first, bytes, MADV_PAGEOUT) && errno != ENOMEM && errno != EINVAL)
		die("MADV_PAGEOUT: %s", strerror(errno));
}

/* Copies each present page; adding zero does not disturb what the device writes. */
static void touch(uint8_t *at, uint64_t bytes, uint64_t page)
{
	unsigned char there[MOST_PAGES];

	if (bytes / BLOCK > MOST_PAGES || mincore(at, bytes, there))
		return;
	for (uint64_t i = 0; i < bytes; i += page)
		if (there[i / BLOCK] & 1)
			__atomic_fetch_add((uint32_t *)(at + i), 0, __ATOMIC_RELAXED);
}

static void share(struct load_churn *churn, uint64_t first, uint64_t bytes, bool move)
{
	uint8_t *at = churn->load->target + first;
	int pipe_ends[2], status;
	pid_t child;

	if (pipe(pipe_ends))
		die("pipe: %s", strerror(errno));
	advise(at, bytes, MADV_DOFORK);
	child = fork();
	if (child < 0)
		die("fork: %s", strerror(errno));
	if (child == 0) {
		char end;

		/* Until the parent has copied its pages. */
		close(pipe_ends[1]);
		_exit(move && read(pipe_ends[0], &end, 1) < 0);
	}
	if (move)
		touch(at, bytes, churn->page);
	close(pipe_ends[0]);
	close(pipe_ends[1]);
	if (waitpid(child, &status, 0) != child)
		die("waitpid: %s", strerror(errno));
	advise(at, bytes, MADV_DONTFORK);
}

static void *churn_thread(void *argument)
{
	struct load_churn *churn = argument;
	const struct load_options *options = churn->load->options;
	uint64_t run = options->churn_pages < churn->pages ? options->churn_pages : churn->pages;

	for (;;) {
		double chance = (double)(rng_next(&churn->rng) >> 11) / 9007199254740992.0;
		uint64_t first;

		pause_for(churn, -log(1 - chance) / options->churn_per_second);
		if (atomic_load(&churn->stop))
			return NULL;
		first = rng_below(&churn->rng, churn->pages - run + 1) * churn->page;
		if (options->churn == CHURN_EVICT)
			evict(churn, first, run * churn->page);
		else
			share(churn, first, run * churn->page, options->churn == CHURN_MOVE);
		churn->count++;
	}
}

struct load_churn *load_churn_start(struct load *load)
{
	const struct load_options *options = load->options;
	struct load_churn *churn;

	if (options->churn == CHURN_NONE)
		return NULL;
	churn = xcalloc(1, sizeof(*churn));
	churn->load = load;
	churn->rng.state = options->seed ^ UINT64_C(0x636875726e);
	churn->has_swap = swap_is_there();
	churn->page = options->large_pages ? HUGE_BLOCK : BLOCK;
	churn->pages = (options->region_bytes + churn->page - 1) / churn->page;
	if (options->churn == CHURN_EVICT && !churn->has_swap)
		printf("no swap: pages that are evicted lose their content\n");
	if (options->churn != CHURN_EVICT)
		advise(load->target, churn->pages * churn->page, MADV_DONTFORK);
	if (pthread_create(&churn->thread, NULL, churn_thread, churn))
		die("no thread for churn");
	return churn;
}

uint64_t load_churn_stop(struct load_churn *churn)
{
	uint64_t count;

	if (!churn)
		return 0;
	atomic_store(&churn->stop, true);
	pthread_join(churn->thread, NULL);
	count = churn->count;
	free(churn);
	return count;
}
