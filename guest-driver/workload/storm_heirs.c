// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "storm_heirs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

#define HEIR_BYTES	(HEIR_PAGES * BLOCK)
#define HEIR_WORDS	(HEIR_BYTES / 8)

static void retire(struct storm *storm, uint64_t **pages)
{
	if (!*pages)
		return;
	for (uint32_t i = 0; i < HEIR_WORDS; i++)
		if ((*pages)[i] != word_of(WORD_ID_HEIR, 1, i & 0xffff)) {
			storm_complain(storm, "a page of somebody else was written to: word %u is %016" PRIx64, i,
				       (*pages)[i]);
			break;
		}
	storm->tally.words_checked += HEIR_WORDS;
	munmap(*pages, HEIR_BYTES);
	*pages = NULL;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t inherited(const uint64_t *pages, const uint64_t *frames, uint32_t count)
{
	uint64_t now[HEIR_PAGES], sum = 0;

	pages_look(pages, HEIR_PAGES, now);
	qsort(now, HEIR_PAGES, sizeof(*now), by_value);
	for (uint32_t i = 0; i < count; i++)
		sum += frames[i] && bsearch(&frames[i], now, HEIR_PAGES, sizeof(*now), by_value);
	return sum;
}

void heirs_take(struct storm *storm, struct heirs *heirs, const uint64_t *frames, uint32_t count)
{
	uint64_t **pages = &heirs->pages[heirs->next++ % HEIRS];

	retire(storm, pages);
	*pages = mmap(NULL, HEIR_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (*pages == MAP_FAILED)
		die("out of memory for an heir");
	madvise(*pages, HEIR_BYTES, MADV_NOHUGEPAGE);
	for (uint32_t i = 0; i < HEIR_WORDS; i++)
		(*pages)[i] = word_of(WORD_ID_HEIR, 1, i & 0xffff);
	heirs->inherited += inherited(*pages, frames, count);
}

void heirs_finish(struct storm *storm, struct heirs *heirs)
{
	for (uint32_t i = 0; i < HEIRS; i++)
		retire(storm, &heirs->pages[i]);
}
