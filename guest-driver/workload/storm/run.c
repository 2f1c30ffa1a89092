// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "run.h"
#include "faults.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define REPORT_NS	(20ull * 1000000000ull)		/* between lines of progress */
#define GIVE_UP		3				/* exit status */

/* In a storm of several disturbers each one waits longer, so its goal is lower. */
static uint64_t goal_of(const struct disturbance *self)
{
	double goals = self->disturber->goal * self->storm->options->scale;
	uint64_t goal = (uint64_t)(self->storm->alone ? goals : goals / 4);

	return goal ? goal : 1;
}

static bool all_done(const struct storm *storm)
{
	for (uint32_t i = 0; i < storm->count; i++)
		if (storm->disturbances[i].count < goal_of(&storm->disturbances[i]))
			return false;
	return true;
}

/* Continues until all have reached their goals, so that every disturber is at work until the end. */
static void *disturb_main(void *argument)
{
	struct disturbance *self = argument;

	while (!self->storm->ending) {
		self->disturber->disturb(self);
		self->count++;
		/* One that has reached its goal continues, but leaves room for the others. */
		storm_await(self->storm, self->count < goal_of(self) ? 8 : 100);
	}
	return NULL;
}

static void say_progress(const struct storm *storm)
{
	printf("  %" PRIu64 " operations", storm->tally.completed);
	for (uint32_t i = 0; i < storm->count; i++)
		printf(", %s %" PRIu64 "/%" PRIu64, storm->disturbances[i].disturber->name,
		       storm->disturbances[i].count, goal_of(&storm->disturbances[i]));
	putchar('\n');
	fflush(stdout);
}

static void __attribute__((noreturn)) give_up(struct storm *storm, const char *what)
{
	printf("storm=%s result=stuck: %s for %llu s\n", storm->name, what, HANG_NS / 1000000000ull);
	traffic_describe(storm->traffic);
	say_progress(storm);
	fflush(stdout);
	_exit(GIVE_UP);
}

/* A counter that must not stop. */
struct pulse {
	uint64_t value, since_ns;
};

static bool still(struct pulse *pulse, uint64_t value)
{
	if (!pulse->since_ns || pulse->value != value)
		*pulse = (struct pulse){ .value = value, .since_ns = now_ns() };
	return now_ns() - pulse->since_ns > HANG_NS;
}

/* Watches until all disturbers have reached their goals. */
static void watch(struct storm *storm)
{
	struct pulse traffic = { 0 }, disturbers[MAX_DISTURBERS] = { 0 };
	uint64_t reported = now_ns();

	while (!all_done(storm)) {
		sleep_ms(10);
		if (now_ns() - reported > REPORT_NS) {
			say_progress(storm);
			reported = now_ns();
		}
		if (still(&traffic, storm->tally.completed))
			give_up(storm, "no operation completes");
		for (uint32_t i = 0; i < storm->count; i++)
			if (still(&disturbers[i], storm->disturbances[i].count))
				give_up(storm, "a disturber makes no progress");
	}
}

void storm_await(struct storm *storm, uint64_t operations)
{
	uint64_t goal = storm->tally.completed + operations;

	while (storm->tally.completed < goal)
		sleep_ms(1);
}

void storm_await_at(struct storm *storm, uint32_t first, uint32_t count, uint64_t operations)
{
	uint64_t goal = arena_operations(&storm->arena, first, count) + operations;

	while (arena_operations(&storm->arena, first, count) < goal)
		sleep_ms(1);
}

static struct storm_engine *open_engine(struct storm *storm)
{
	const struct arena *arena = &storm->arena;
	/* Neither begins at a multiple of 2 MiB, as tables do, and the first not even at a page. */
	struct storm_range ranges[MAX_RANGES] = {
		{ .start = arena->base + 5 * BLOCK + 64, .bytes = arena->bytes - 5 * BLOCK - 64 },
		{ .start = arena->file + 3 * BLOCK, .bytes = FILE_BYTES - 3 * BLOCK },
	};

	if (storm->options->cpu_engine)
		return storm_engine_cpu();
	return storm_engine_verbs(storm->options->device, ranges, arena->file ? 2 : 1);
}

static void *stop_main(void *argument)
{
	struct storm *storm = argument;

	for (uint32_t i = 0; i < storm->count; i++)
		pthread_join(storm->disturbances[i].thread, NULL);
	traffic_stop(storm->traffic);
	return NULL;
}

/* Stops the disturbers, then the traffic; gives up on what does not stop. */
static void stop(struct storm *storm)
{
	pthread_t thread;
	uint64_t start = now_ns();

	storm->ending = true;
	if (pthread_create(&thread, NULL, stop_main, storm))
		die("cannot start a thread");
	while (pthread_tryjoin_np(thread, NULL)) {
		if (now_ns() - start > HANG_NS)
			give_up(storm, "disturbers or traffic do not stop");
		sleep_ms(5);
	}
}

/* Proves that the checks can fail: flips one bit that nothing writes any more. */
static void sabotage(struct storm *storm)
{
	uint64_t *word = (uint64_t *)storm->arena.ledger.blocks[ANON_BLOCKS / 2].address;

	word[1] ^= 1;
	printf("  sabotage: one bit flipped\n");
}

static void say_faults(const struct fault_counts *counts)
{
	printf(" faults=%" PRIu64 " pages_faulted=%" PRIu64 " invalidations=%" PRIu64 " pages_invalidated=%" PRIu64,
	       counts->faults, counts->pages_faulted, counts->invalidations, counts->pages_invalidated);
}

static void say_tally(const struct tally *tally)
{
	printf(" operations=%" PRIu64 " writes=%" PRIu64 " reads=%" PRIu64 " atomics=%" PRIu64 " probes=%" PRIu64
	       " cpu=%" PRIu64 " errors_expected=%" PRIu64 " flushed=%" PRIu64 " errors_unexpected=%" PRIu64
	       " words_checked=%" PRIu64 " words_wrong=%" PRIu64, tally->completed, tally->writes, tally->reads,
	       tally->atomics, tally->probes, tally->cpu, tally->refused, tally->flushed, tally->unexpected,
	       tally->words_checked, tally->words_wrong);
}

static bool report(const struct storm *storm, const struct fault_counts *faults, double seconds)
{
	bool pass = !storm->tally.unexpected && !storm->tally.words_wrong;
	uint64_t disturbances = 0;

	for (uint32_t i = 0; i < storm->count; i++) {
		disturbances += storm->disturbances[i].count;
		pass &= !storm->alone || storm->disturbances[i].effect > 0;
	}
	printf("storm=%s result=%s disturbances=%" PRIu64, storm->name, pass ? "pass" : "fail", disturbances);
	for (uint32_t i = 0; i < storm->count; i++)
		printf(" %s=%" PRIu64, storm->disturbances[i].disturber->unit, storm->disturbances[i].effect);
	say_faults(faults);
	say_tally(&storm->tally);
	printf(" seconds=%.1f\n", seconds);
	fflush(stdout);
	return pass;
}

static void begin(struct storm *storm, struct storm_engine *engine)
{
	for (uint32_t i = 0; i < storm->count; i++)
		if (storm->disturbances[i].disturber->prepare)
			storm->disturbances[i].disturber->prepare(&storm->disturbances[i]);
	storm->traffic = traffic_start(&storm->arena, engine, &storm->tally, mix64(storm->options->seed));
	for (uint32_t i = 0; i < storm->count; i++)
		if (pthread_create(&storm->disturbances[i].thread, NULL, disturb_main, &storm->disturbances[i]))
			die("cannot start a thread");
}

static void finish(struct storm *storm)
{
	for (uint32_t i = 0; i < storm->count; i++)
		if (storm->disturbances[i].disturber->finish)
			storm->disturbances[i].disturber->finish(&storm->disturbances[i]);
	if (storm->options->sabotage)
		sabotage(storm);
	traffic_check_all(&storm->arena, &storm->tally);
}

bool storm_run(const struct storm_options *options, const char *name, const struct disturber *const *disturbers,
	       uint32_t count)
{
	struct storm *storm = xcalloc(1, sizeof(*storm));
	struct fault_counts faults;
	struct storm_engine *engine;
	uint64_t start = now_ns();
	bool file = false, pass;

	*storm = (struct storm){ .options = options, .name = name, .alone = count == 1, .count = count };
	for (uint32_t i = 0; i < count; i++) {
		storm->disturbances[i] = (struct disturbance){
			.disturber = disturbers[i],
			.storm = storm,
			.rng.state = mix64(options->seed + i + 1),
		};
		file |= disturbers[i]->needs_file;
	}
	arena_init(&storm->arena, file ? &options->fs : NULL);
	engine = open_engine(storm);
	faults_begin();
	begin(storm, engine);
	watch(storm);
	stop(storm);
	finish(storm);
	/* While the regions exist, and nothing is in flight any more. */
	faults_end(&faults);
	engine->close(engine);
	pass = report(storm, &faults, seconds_since(start));
	arena_free(&storm->arena);
	free(storm);
	return pass;
}
