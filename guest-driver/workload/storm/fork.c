// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `fork`: a child has the memory as it was at the fork, and must keep it while DMA to the parent's memory goes on at
 * the same addresses; the parent's DMA must not see what the child writes. All memory of both is copy-on-write.
 */
#define _GNU_SOURCE
#include "run.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#define LOOKS		2u	/* of the child, at everything */

/* What the child may find in a slot, and whether it checks the slot at all. */
struct expectation {
	bool look;
	const char *address;
	struct window window;
	uint64_t sum;		/* of the child's first look */
};

/* Shared by parent and child. */
struct meeting {
	_Atomic uint64_t checked, wrong;	/* words */
	_Atomic uint32_t looks;			/* that the child has made */
	uint32_t slot;				/* first that was wrong, and how */
	struct window window;
	uint64_t found;
	bool changed;
};

struct fork_state {
	struct meeting *meeting;
	struct expectation *expected;		/* shared, too: the parent completes them after the fork */
};

static uint64_t sum_of(const struct slot *slot, const char *address)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < slot->length; i += 8)
		sum = sum * 31 + *(const uint64_t *)(address + i);
	return sum;
}

static void note_wrong(struct fork_state *state, const struct slot *slot, uint64_t found, bool changed)
{
	struct meeting *meeting = state->meeting;

	if (meeting->wrong++)
		return;
	meeting->slot = slot->index;
	meeting->window = state->expected[slot->index].window;
	meeting->found = found;
	meeting->changed = changed;
}

/* In the child: each slot is as at the fork, and then stays so. */
static void look(const struct ledger *ledger, struct fork_state *state, bool first)
{
	for (uint32_t i = 0; i < ledger->slot_count; i++) {
		struct expectation *expected = &state->expected[i];
		const struct slot *slot = &ledger->slots[i];
		struct mismatch bad;

		if (!expected->look)
			continue;
		state->meeting->checked += slot->length / 8;
		if (slot_check(slot, &expected->window, expected->address, &bad))
			note_wrong(state, slot, bad.found, false);
		if (first)
			expected->sum = sum_of(slot, expected->address);
		else if (expected->sum != sum_of(slot, expected->address))
			note_wrong(state, slot, 0, true);
	}
}

/* In the child: what it writes to its copies stays private. */
static void scribble(const struct ledger *ledger, const struct expectation *expected)
{
	for (uint32_t i = 0; i < ledger->slot_count; i += 3)
		if (expected[i].look)
			*(uint64_t *)expected[i].address = word_of(WORD_ID_CHILD, 1, i);
}

static void check_scribbles(const struct ledger *ledger, struct fork_state *state)
{
	for (uint32_t i = 0; i < ledger->slot_count; i += 3) {
		uint64_t word = state->expected[i].look ? *(const uint64_t *)state->expected[i].address : 0;

		if (state->expected[i].look && word != word_of(WORD_ID_CHILD, 1, i))
			note_wrong(state, &ledger->slots[i], word, true);
	}
}

static void await_parent(int fd)
{
	char byte;

	if (read(fd, &byte, 1) != 1)
		_exit(2);
}

static void __attribute__((noreturn)) child(const struct ledger *ledger, struct fork_state *state, int parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (uint32_t i = 0; i < LOOKS; i++) {
		await_parent(parent);
		look(ledger, state, i == 0);
		state->meeting->looks++;
	}
	scribble(ledger, state->expected);
	state->meeting->looks++;
	await_parent(parent);
	check_scribbles(ledger, state);
	_exit(0);
}

/* Before the fork: what each slot may hold. */
static void note_before(struct ledger *ledger, struct expectation *expected, uint32_t *epochs)
{
	ledger_lock(ledger);
	for (uint32_t i = 0; i < ledger->slot_count; i++) {
		const struct block *block = &ledger->blocks[ledger->slots[i].block];

		expected[i] = (struct expectation){
			/* A file's memory is shared with the child. */
			.look = ledger->slots[i].block < ANON_BLOCKS && block->state == BLOCK_OPEN,
			.address = block->address + ledger->slots[i].offset,
			.window = slot_window(&ledger->slots[i]),
		};
		epochs[i] = block->epoch + block->replaced;
		expected[i].window.zero |= block->replacing;
	}
	ledger_unlock(ledger);
}

/* After the fork: what was posted or changed in between. */
static void note_after(struct ledger *ledger, struct expectation *expected, const uint32_t *epochs)
{
	ledger_lock(ledger);
	for (uint32_t i = 0; i < ledger->slot_count; i++) {
		const struct slot *slot = &ledger->slots[i];
		const struct block *block = &ledger->blocks[slot->block];

		if (epochs[i] != block->epoch + block->replaced)
			expected[i].look = false;
		if (slot->high > expected[i].window.high)
			expected[i].window.high = slot->high;
	}
	ledger_unlock(ledger);
}

static void await_looks(struct storm *storm, struct meeting *meeting, uint32_t looks)
{
	while (meeting->looks < looks)
		sleep_ms(1);
	storm_await(storm, 10);
}

static void wake_child(int fd)
{
	if (write(fd, "g", 1) != 1)
		die("the child is gone: %s", strerror(errno));
}

static void conclude(struct disturbance *self, pid_t pid, const struct meeting *meeting)
{
	int status;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	self->storm->tally.words_checked += meeting->checked;
	self->storm->tally.words_wrong += meeting->wrong;
	self->effect += meeting->checked;
	if (status)
		storm_complain(self->storm, "a child ended with status %#x", status);
	if (meeting->wrong)
		storm_complain(self->storm, "in a child slot %u %s, %" PRIu64 " slots in all: found %016" PRIx64
			       ", allowed [%u, %u]%s", meeting->slot,
			       meeting->changed ? "changed" : "was not as at the fork", meeting->wrong, meeting->found,
			       meeting->window.low, meeting->window.high, meeting->window.zero ? " or zero" : "");
}

static void disturb(struct disturbance *self)
{
	struct fork_state *state = self->state;
	struct ledger *ledger = &self->storm->arena.ledger;
	uint32_t *epochs = xcalloc(ledger->slot_count, sizeof(*epochs));
	int wake[2];
	pid_t pid;

	*state->meeting = (struct meeting){ 0 };
	if (pipe(wake))
		die("pipe: %s", strerror(errno));
	note_before(ledger, state->expected, epochs);
	pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (!pid) {
		close(wake[1]);
		child(ledger, state, wake[0]);
	}
	close(wake[0]);
	note_after(ledger, state->expected, epochs);
	for (uint32_t i = 0; i < LOOKS; i++) {
		wake_child(wake[1]);
		await_looks(self->storm, state->meeting, i + 1);
	}
	await_looks(self->storm, state->meeting, LOOKS + 1);
	wake_child(wake[1]);
	conclude(self, pid, state->meeting);
	close(wake[1]);
	free(epochs);
}

static void prepare(struct disturbance *self)
{
	struct fork_state *state = xcalloc(1, sizeof(*state));

	state->meeting = xshared(sizeof(*state->meeting));
	state->expected = xshared(self->storm->arena.ledger.slot_count * sizeof(*state->expected));
	self->state = state;
}

static void finish(struct disturbance *self)
{
	struct fork_state *state = self->state;

	munmap(state->meeting, sizeof(*state->meeting));
	munmap(state->expected, self->storm->arena.ledger.slot_count * sizeof(*state->expected));
	free(state);
}

const struct disturber disturber_fork = {
	.name = "fork",
	.what = "children that keep the memory as it was, under DMA to the parent's",
	.unit = "words_in_children",
	.goal = 8,
	.prepare = prepare,
	.disturb = disturb,
	.finish = finish,
};
