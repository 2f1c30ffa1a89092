// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * `kill`: a process with writes and faults under way is killed, again and again. Each child has a new address
 * space, so all its mappings are yet to fault when it dies. What it saw acknowledged must be in the file;
 * and when the last one is gone, the kernel must hold no more than before.
 */
#define _GNU_SOURCE
#include "demo_memory.h"
#include "demo_run.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define WARM_UP		10	/* kills before the kernel's memory is first looked at: caches fill, slabs grow */
#define LIFE_LIMIT	60	/* seconds that freeing all blocks may take */

/* The child: opens the device, writes into the file, and says so once its queue pairs are at it. */
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

	alarm(LIFE_LIMIT);
	fs_clone(copy, run->fd);
	fs_punch(run->fd, 0, bytes);
	fs_exchange(run->fd, copy, 0, bytes);
	alarm(0);
	close(copy);
	fs_remove(&run->options->fs, "copy");
}

static void kill_loop(struct run *run)
{
	struct kernel_state before, after;
	uint64_t kills = run_goal(run, 100), warm_up = kills / 2 < WARM_UP ? kills / 2 : WARM_UP;
	char what[300];

	kernel_state_settled(&before);
	for (uint64_t number = 0; number < kills && !run->failed; number++) {
		if (number == warm_up)
			kernel_state_settled(&before);
		kill_one(run, number);
	}
	if (!kernel_state_awaited(&before, &after, run->layout.file_bytes, what, sizeof(what)))
		run_fail(run, "after %" PRIu64 " kills %s", kills - warm_up, what);
	free_every_block(run);
	run_note(run, "available memory %+" PRId64 " KiB, slab %+" PRId64 " KiB, page tables %+" PRId64
		 " KiB, IOMMU tables %+" PRId64 " KiB over %" PRIu64 " kills; RDMA objects as before",
		 (int64_t)(after.available - before.available),
		 (int64_t)(after.unreclaimable - before.unreclaimable),
		 (int64_t)(after.page_tables - before.page_tables),
		 (int64_t)(after.iommu_tables - before.iommu_tables), kills - warm_up);
}

const struct scenario scenario_kill = {
	.name = "kill",
	.what = "the process is killed with faults in flight",
	.bare = true,
	.run = kill_loop,
};
