// SPDX-License-Identifier: Apache-2.0 OR MIT
/* The process beside the attack. It cannot expect that its requests succeed, but that they do what they say. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/others.h"
#include "hostile.h"

#define BUFFER	(16 * BLOCK)

static unsigned char right_byte(uint64_t round, size_t at)
{
	return (unsigned char)mix64(round * BUFFER + at);
}

/* Whether the round's completion came before the end. */
static bool completes(struct pairs *pairs, struct ibv_wc *wc, const struct neighbour *seen)
{
	while (!pairs_poll(pairs, wc, 1, 100))
		if (__atomic_load_n(&seen->stop, __ATOMIC_ACQUIRE))
			return false;
	return true;
}

void be_neighbour(struct neighbour *seen)
{
	unsigned char *memory = xshared(2 * BUFFER);
	struct verbs_port port;
	struct pairs pairs;
	struct ibv_mr *mr;

	/* Complaints about a device that was taken away are expected. */
	if (!freopen("/dev/null", "w", stderr))
		_exit(2);
	verbs_open_port(&port, NULL);
	pairs_open(&pairs, &port, &port, 1, 4);
	mr = verbs_on_demand_mr(&port, memory, 2 * BUFFER, 0);
	for (uint64_t round = 0; !__atomic_load_n(&seen->stop, __ATOMIC_ACQUIRE); round++) {
		struct ibv_wc wc;

		for (size_t i = 0; i < BUFFER; i++)
			memory[i] = right_byte(round, i);
		post_write(pairs.senders[0], mr, BUFFER, (uintptr_t)memory + BUFFER, mr->rkey);
		if (!completes(&pairs, &wc, seen))
			break;
		if (wc.status != IBV_WC_SUCCESS) {
			__atomic_fetch_add(&seen->failed, 1, __ATOMIC_RELEASE);
			break;
		}
		for (size_t i = 0; i < 2 * BUFFER; i++)
			seen->wrong |= memory[i] != right_byte(round, i % BUFFER);
		if (seen->wrong)
			break;
		__atomic_fetch_add(&seen->right, 1, __ATOMIC_RELEASE);
	}
	_exit(0);
}
