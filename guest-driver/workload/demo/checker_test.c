// SPDX-License-Identifier: Apache-2.0 OR MIT
/* Tests of the checker alone: what it must accept and what it must reject. Needs no guest. */
#include "ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN 0x1234

static int failures;

static void expect(bool holds, const char *rule)
{
	printf("%s %s\n", holds ? "ok  " : "FAIL", rule);
	failures += !holds;
}

static const struct slot slot = { .offset = 0x40c0, .length = 16 * 1024, .index = 7, .qp = 2 };

static uint64_t check(const void *data, version_t lo, version_t hi)
{
	struct window window = { .lo = lo, .hi = hi };
	struct mismatch bad;

	return record_check(data, RUN, &slot, &window, &bad);
}

static void record_rules(void)
{
	uint64_t *record = xcalloc(1, slot.length), *other = xcalloc(1, slot.length);
	struct slot neighbour = slot;
	struct window base = { .base = VERSION_FILL(3), .lo = 6, .hi = 5, .maybe_base = true };
	struct window zeros = { .base = VERSION_ZEROS, .lo = 6, .hi = 6, .maybe_base = true };
	struct mismatch bad;

	record_fill(record, RUN, &slot, 5);
	expect(check(record, 5, 5) == 0, "an acknowledged record is right");
	expect(check(record, 4, 6) == 0, "and inside a wider window");
	expect(check(record, 6, 6) > slot.length - 64, "a lost write is wrong all over");
	expect(check(record, 3, 4) > slot.length - 64, "a version beyond what was posted is wrong");

	((unsigned char *)record)[slot.length - 1] ^= 1;
	expect(check(record, 5, 5) == 8, "one flipped bit is found");
	((unsigned char *)record)[slot.length - 1] ^= 1;

	record_fill(other, RUN, &slot, 6);
	memcpy(record + 512, other + 512, 4096);
	expect(check(record, 5, 5) == 4096, "a torn record is wrong where it is torn");
	expect(check(record, 5, 6) == 0, "unless that write was in flight");

	neighbour.index++;
	record_fill(record, RUN, &neighbour, 5);
	expect(check(record, 5, 5) > slot.length - 64, "another slot's record is wrong");
	record_fill(record, RUN, &slot, 5);
	memmove(record + 100, record + 101, 800);
	expect(check(record, 5, 5) == 800, "the right record at a shifted place is wrong");

	record_fill(record, RUN, &slot, VERSION_FILL(3));
	expect(record_check(record, RUN, &slot, &base, &bad) == 0, "the base is allowed where it may be");
	record_fill(record, RUN, &slot, 6);
	memset(record + 1024, 0, 4096);
	expect(record_check(record, RUN, &slot, &zeros, &bad) == 0, "a hole, half written over, is allowed");
	expect(check(record, 6, 6) == 4096, "and is wrong once the write is acknowledged");
	free(record);
	free(other);
}

static void layout_rules(void)
{
	struct layout layout;
	uint64_t straddling = 0, tail = 0;

	layout_build(&layout, 64 * MIB, 4, 16 * MIB, 1);
	for (uint32_t i = 0; i < layout.count; i++) {
		const struct slot *s = &layout.slots[i];

		straddling += s->length <= BLOCK && s->offset / BLOCK != (s->offset + s->length - 1) / BLOCK;
		tail += (s->offset >= 48 * MIB) != (s->qp == 3);
	}
	expect(straddling > 100, "records straddle pages");
	expect(tail == 0, "the last queue pair owns the tail and nothing else");
	layout_free(&layout);
}

static void ledger_rules(void)
{
	struct layout layout;
	struct ledger ledger;
	struct moment moment;
	struct window window;

	layout_build(&layout, 16 * MIB, 2, 0, 1);
	ledger_init(&ledger, &layout, RUN, VERSION_FILL(0));
	window = ledger_window(&ledger, 0);
	expect(window.maybe_base && window.hi < window.lo, "a new file holds its base alone");

	ledger.posted[0] = ledger.acked[0] = 5;
	window = ledger_window(&ledger, 0);
	expect(!window.maybe_base && window.lo == 5 && window.hi == 5, "an acknowledged write is all there is");

	ledger.posted[0] = 6;
	moment_begin(&moment, &ledger, 0, LAYOUT_UNIT);
	ledger.posted[0] = 7;
	ledger.acked[0] = 6;
	moment_end(&moment, &ledger);
	expect(moment.windows[0].lo == 5 && moment.windows[0].hi == 7, "a copy holds old, or what was in flight");
	ledger_replace(&ledger, &moment, VERSION_ZEROS);
	window = ledger_window(&ledger, 0);
	expect(window.maybe_base && window.lo == 6 && window.hi == 7, "a hole holds zeros, or what was in flight");
	ledger.acked[0] = 7;
	expect(ledger_window(&ledger, 0).maybe_base, "also when that is acknowledged");
	ledger.posted[0] = ledger.acked[0] = 8;
	window = ledger_window(&ledger, 0);
	expect(!window.maybe_base && window.lo == 8, "a write after the hole was punched must be there");

	moment_free(&moment);
	moment_begin(&moment, &ledger, 0, LAYOUT_UNIT);
	moment_end(&moment, &ledger);
	ledger_reset(&ledger, &moment, VERSION_ZEROS);
	window = ledger_window(&ledger, 0);
	expect(window.maybe_base && window.hi < window.lo, "a tail that grew back holds zeros alone");
	moment_free(&moment);
	ledger_free(&ledger);
	layout_free(&layout);
}

int main(void)
{
	record_rules();
	layout_rules();
	ledger_rules();
	return failures != 0;
}
