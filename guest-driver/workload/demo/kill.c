// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `kill`: a process with writes and faults in flight is killed, again and again. Each child has a new address
 * space, so all its mappings are yet to fault when it dies. What it saw acknowledged must be in the file;
 * and when the last one is gone, the kernel must hold no more than before.
 */
#define _GNU_SOURCE
#include "memory.h"
#include "run.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILLS		100
#define WARM_UP		10	/* kills before the kernel's memory is first looked at: caches fill, slabs grow */

/* The child: opens the device, writes into the file, and reports once its queue pairs are writing. */
static void __attribute__((noreturn)) child(struct run *run, int ready, uint64_t number)
{
	uint64_t before = run->counters->writes;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	run->engine = run_open_engine(run);
	struct stream_config config = run_stream_config(run);

	config.seed = mix64(run->id + number);
	run->stream = stream_start(&config);
	while (run->counters->writes == before)
		usleep(200);
	if (write(ready, "r", 1) != 1)
		_exit(3);
	while (!stream_broken(run->stream))
		sleep_ms(1);
	dprintf(STDERR_FILENO, "refault-demo: %s\n", stream_broken(run->stream));
	_exit(4);
}

/* True once the child wrote its byte; false if it ended instead. */
static bool wait_ready(int fd)
{
	char byte;
	ssize_t got;

	do
		got = read(fd, &byte, 1);
	while (got < 0 && errno == EINTR);
	return got == 1;
}

static void kill_one(struct run *run, uint64_t number)
{
	int ready[2], status;
	pid_t pid;

	if (pipe(ready))
		die("pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (pid == 0) {
		close(ready[0]);
		child(run, ready[1], number);
	}
	close(ready[1]);
	if (wait_ready(ready[0]))
		usleep((useconds_t)rng_below(&run->rng, 8000));
	close(ready[0]);
	kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		run_fail(run, "child %" PRIu64 " ended by itself, status %#x", number, status);
	run->counters->operations++;
}

/*
 * Freeing DAX blocks waits for the last user of their pages. If a dead process' device still held one, this
 * would never return, and the alarm ends the program.
 */
static void free_every_block(struct run *run)
{
	uint64_t bytes = run->layout.file_bytes;
	int copy = fs_create_file(&run->options->fs, "copy");

	alarm(HANG_NS / 1000000000);
	fs_clone(copy, run->fd);
	fs_punch(run->fd, 0, bytes);
	fs_exchange(run->fd, copy, 0, bytes);
	alarm(0);
	close(copy);
	fs_remove(&run->options->fs, "copy");
}

/* Of the kills that count. */
static double progress(const struct run *run, uint64_t warm_up)
{
	uint64_t kills = run->counters->operations;

	return kills > warm_up ? run_progress(run, kills - warm_up, KILLS - WARM_UP) : 0;
}

static void kill_loop(struct run *run)
{
	uint64_t kills = run_goal(run, KILLS), warm_up = kills / 2 < WARM_UP ? kills / 2 : WARM_UP;
	struct kernel_state before, after;
	char what[300];

	kernel_state_settled(&before);
	while (run_go_on(run, progress(run, warm_up))) {
		if (run->counters->operations == warm_up)
			kernel_state_settled(&before);
		kill_one(run, run->counters->operations);
	}
	if (run->counters->operations <= warm_up) {
		/* So few that what is left says nothing. */
		free_every_block(run);
		return;
	}
	kills = run->counters->operations - warm_up;
	if (!kernel_state_awaited(&before, &after, run->layout.file_bytes, what, sizeof(what)))
		run_fail(run, "after %" PRIu64 " kills %s", kills, what);
	free_every_block(run);
	run_note(run, "available memory %+" PRId64 " KiB, slab %+" PRId64 " KiB, page tables %+" PRId64
		 " KiB, IOMMU tables %+" PRId64 " KiB over %" PRIu64 " kills; RDMA objects as before",
		 (int64_t)(after.available - before.available),
		 (int64_t)(after.unreclaimable - before.unreclaimable),
		 (int64_t)(after.page_tables - before.page_tables),
		 (int64_t)(after.iommu_tables - before.iommu_tables), kills);
}

const struct scenario scenario_kill = {
	.name = "kill",
	.what = "the process is killed with faults in flight",
	.bare = true,
	.weight = 6,
	.run = kill_loop,
};
