// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "ledger.h"

#include <stdlib.h>
#include <sys/mman.h>

void ledger_init(struct ledger *ledger, const struct layout *layout, uint64_t run, version_t base)
{
	size_t bytes = layout->count * sizeof(uint64_t);

	*ledger = (struct ledger){
		.layout = layout,
		.run = run,
		.posted = xshared(bytes),
		.acked = xshared(bytes),
		.base = xcalloc(layout->count, sizeof(version_t)),
		.low = xcalloc(layout->count, sizeof(version_t)),
		.barrier = xcalloc(layout->count, sizeof(version_t)),
	};
	for (uint32_t i = 0; i < layout->count; i++) {
		ledger->base[i] = base;
		ledger->low[i] = 1;
	}
}

void ledger_free(struct ledger *ledger)
{
	size_t bytes = ledger->layout ? ledger->layout->count * sizeof(uint64_t) : 0;

	if (!bytes)
		return;
	munmap((void *)ledger->posted, bytes);
	munmap((void *)ledger->acked, bytes);
	free(ledger->base);
	free(ledger->low);
	free(ledger->barrier);
	*ledger = (struct ledger){ 0 };
}

struct window ledger_window(const struct ledger *ledger, uint32_t slot)
{
	/* In this order: an acknowledgement between the two loads only widens the window. */
	version_t acked = atomic_load(&ledger->acked[slot]);
	version_t posted = atomic_load(&ledger->posted[slot]);

	if (acked > ledger->barrier[slot])
		return (struct window){ .lo = acked, .hi = posted };
	return (struct window){
		.base = ledger->base[slot],
		.lo = ledger->low[slot],
		.hi = posted,
		.maybe_base = true,
	};
}

void moment_begin(struct moment *moment, const struct ledger *ledger, uint64_t offset, uint64_t length)
{
	uint32_t end = layout_find(ledger->layout, offset + length);

	moment->offset = offset;
	moment->length = length;
	moment->first = layout_find(ledger->layout, offset);
	if (end > moment->first) {
		const struct slot *last = &ledger->layout->slots[end - 1];

		if (last->offset + last->length > offset + length)
			end--;
	}
	moment->count = end > moment->first ? end - moment->first : 0;
	moment->windows = xcalloc(moment->count, sizeof(*moment->windows));
	moment->acked = xcalloc(moment->count, sizeof(*moment->acked));
	for (uint32_t i = 0; i < moment->count; i++) {
		moment->acked[i] = atomic_load(&ledger->acked[moment->first + i]);
		moment->windows[i] = ledger_window(ledger, moment->first + i);
	}
}

void moment_end(struct moment *moment, const struct ledger *ledger)
{
	for (uint32_t i = 0; i < moment->count; i++)
		moment->windows[i].hi = atomic_load(&ledger->posted[moment->first + i]);
}

void moment_free(struct moment *moment)
{
	free(moment->windows);
	free(moment->acked);
	*moment = (struct moment){ 0 };
}

void ledger_replace(struct ledger *ledger, const struct moment *moment, version_t base)
{
	for (uint32_t i = 0; i < moment->count; i++) {
		uint32_t slot = moment->first + i;

		ledger->base[slot] = base;
		ledger->low[slot] = moment->acked[i] + 1;
		ledger->barrier[slot] = moment->windows[i].hi;
	}
}

void ledger_reset(struct ledger *ledger, const struct moment *moment, version_t base)
{
	ledger_replace(ledger, moment, base);
	for (uint32_t i = 0; i < moment->count; i++)
		ledger->low[moment->first + i] = moment->windows[i].hi + 1;
}
