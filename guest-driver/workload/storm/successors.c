// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "successors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

#define SUCCESSOR_BYTES	(SUCCESSOR_PAGES * BLOCK)
#define SUCCESSOR_WORDS	(SUCCESSOR_BYTES / 8)

static void retire(struct storm *storm, uint64_t **pages)
{
	if (!*pages)
		return;
	for (uint32_t i = 0; i < SUCCESSOR_WORDS; i++)
		if ((*pages)[i] != word_of(WORD_ID_SUCCESSOR, 1, i & 0xffff)) {
			storm_complain(storm, "a page of another owner was written to: word %u is %016" PRIx64, i,
				       (*pages)[i]);
			break;
		}
	storm->tally.words_checked += SUCCESSOR_WORDS;
	munmap(*pages, SUCCESSOR_BYTES);
	*pages = NULL;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t inherited(const uint64_t *pages, const uint64_t *frames, uint32_t count)
{
	uint64_t now[SUCCESSOR_PAGES], sum = 0;

	pages_look(pages, SUCCESSOR_PAGES, now);
	qsort(now, SUCCESSOR_PAGES, sizeof(*now), by_value);
	for (uint32_t i = 0; i < count; i++)
		sum += frames[i] && bsearch(&frames[i], now, SUCCESSOR_PAGES, sizeof(*now), by_value);
	return sum;
}

void successors_take(struct storm *storm, struct successors *successors, const uint64_t *frames, uint32_t count)
{
	uint64_t **pages = &successors->pages[successors->next++ % SUCCESSORS];

	retire(storm, pages);
	*pages = mmap(NULL, SUCCESSOR_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (*pages == MAP_FAILED)
		die("out of memory for a successor");
	madvise(*pages, SUCCESSOR_BYTES, MADV_NOHUGEPAGE);
	for (uint32_t i = 0; i < SUCCESSOR_WORDS; i++)
		(*pages)[i] = word_of(WORD_ID_SUCCESSOR, 1, i & 0xffff);
	successors->inherited += inherited(*pages, frames, count);
}

void successors_finish(struct storm *storm, struct successors *successors)
{
	for (uint32_t i = 0; i < SUCCESSORS; i++)
		retire(storm, &successors->pages[i]);
}
