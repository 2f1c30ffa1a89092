// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A hostile root in the guest. It writes at random to the IOMMU's registers, the NIC's BARs and configuration space,
 * while a process beside it moves bytes through the NIC and checks them. That process' requests may fail or never
 * complete, but one that succeeds has moved the right bytes. After each round the registers are put back and the NIC
 * is reset, and then it must serve again. Needs iomem=relaxed on the kernel's command line.
 *
 *   refault-hostile-root [--ruthless] [ROUNDS [SEED]]
 *
 * With --ruthless nothing is put back, and the kernel is not spared: it may well crash or hang.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostile.h"

#define ROUNDS		20
#define ACTIONS		300	/* in each */
#define PAUSE_EVERY	20	/* actions, for the neighbour to get on */
#define LINGER_MS	200	/* for it to see the consequences */

static struct neighbour *seen;

/* Whether the process has ended. */
static bool has_ended(pid_t child)
{
	return waitpid(child, NULL, WNOHANG) != 0;
}

static void await_end(pid_t child)
{
	uint64_t begin = now_ns();

	while (!has_ended(child)) {
		if (now_ns() - begin > HANG_NS)
			die("NOT OK - a process that was killed does not end");
		sleep_ms(5);
	}
}

static bool is_there(void)
{
	DIR *devices = opendir("/sys/class/infiniband");
	struct dirent *entry;
	bool found = false;

	while (devices && (entry = readdir(devices)))
		found |= entry->d_name[0] != '.';
	if (devices)
		closedir(devices);
	return found;
}

/* Starts the neighbour and waits until it has moved its first bytes. */
static pid_t start_neighbour(void)
{
	uint64_t begin = now_ns();
	pid_t child = 0;

	memset(seen, 0, sizeof(*seen));
	while (!__atomic_load_n(&seen->right, __ATOMIC_ACQUIRE)) {
		if (now_ns() - begin > HANG_NS)
			die("NOT OK - the NIC does not serve");
		/* The port may not be up yet. */
		if (is_there() && (!child || has_ended(child))) {
			child = fork();
			if (!child)
				be_neighbour(seen);
		}
		sleep_ms(5);
	}
	return child;
}

static void stop_neighbour(pid_t child)
{
	__atomic_store_n(&seen->stop, true, __ATOMIC_RELEASE);
	kill(child, SIGKILL);
	await_end(child);
}

static void reset(const struct targets *targets)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/reset", targets->folder);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) != 1)
		die("NOT OK - resetting the NIC: %s", strerror(errno));
	close(fd);
}

static void attack(struct attack *attack)
{
	scratch_fill(attack->scratch, &attack->rng);
	for (unsigned int i = 0; i < ACTIONS; i++) {
		attack_once(attack);
		if (i % PAUSE_EVERY == 0)
			sleep_ms(1);
	}
}

int main(int argc, char **argv)
{
	bool ruthless = argc > 1 && !strcmp(argv[1], "--ruthless");
	uint64_t rounds = ROUNDS, seed = now_ns(), right = 0, failed = 0;
	struct targets targets;
	struct scratch scratch;
	struct saved *saved;

	parse_count_and_seed(argc - ruthless, argv + ruthless, "refault-hostile-root [--ruthless] [ROUNDS [SEED]]", &rounds,
			     &seed);
	seen = xshared(sizeof(*seen));
	targets_open(&targets);
	scratch_open(&scratch);
	saved = save_registers(&targets);
	for (uint64_t round = 0; round < rounds; round++) {
		struct attack now = { .targets = &targets, .scratch = &scratch, .rng.state = mix64(seed + round),
				      .sparing = !ruthless };
		pid_t neighbour = ruthless && round ? 0 : start_neighbour();

		now.places = 1 + (unsigned int)rng_below(&now.rng, (1u << PLACES) - 1);
		/* Before the attack, in case that it is the last one. */
		printf("round %llu: places=%#x%s", (unsigned long long)round, now.places, ruthless ? "\n" : "");
		fflush(stdout);
		attack(&now);
		if (ruthless)
			continue;
		sleep_ms(LINGER_MS);
		/* First, because a process that ends needs the devices. */
		restore_registers(&targets, saved);
		if (!has_ended(neighbour))
			stop_neighbour(neighbour);
		if (seen->wrong)
			die("NOT OK - round %llu: a request succeeded, and the bytes are wrong",
			    (unsigned long long)round);
		printf(" right=%llu failed=%llu\n", (unsigned long long)seen->right, (unsigned long long)seen->failed);
		right += seen->right;
		failed += seen->failed;
		reset(&targets);
	}
	if (!ruthless)
		stop_neighbour(start_neighbour());
	printf("rounds=%llu right=%llu failed=%llu\n", (unsigned long long)rounds, (unsigned long long)right,
	       (unsigned long long)failed);
	return 0;
}
