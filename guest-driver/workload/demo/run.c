// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "run.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define INITIAL VERSION_FILL(0)

const char *mapping_name(enum mapping_mode mapping)
{
	return mapping == MAPPING_4K ? "4k" : "2m";
}

void run_fail(struct run *run, const char *fmt, ...)
{
	va_list args;

	if (run->failed)
		return;
	run->failed = true;
	va_start(args, fmt);
	vsnprintf(run->reason, sizeof(run->reason), fmt, args);
	va_end(args);
}

void run_note(struct run *run, const char *fmt, ...)
{
	va_list args;

	if (run->failed || run->slow)
		return;
	va_start(args, fmt);
	vsnprintf(run->reason, sizeof(run->reason), fmt, args);
	va_end(args);
}

/* Not a verdict on the device: it says how far this machine came. */
static void run_too_slow(struct run *run, double progress)
{
	run_note(run, "%.0f %% of its goals in %.0f s, less than proves anything: %" PRIu64 " operations, %" PRIu64
		 " blocks moved, %" PRIu64 " mappings written anew", progress * 100, seconds_since(run->start_ns),
		 run->counters->operations, run->counters->blocks_moved, run->counters->touches);
	run->slow = true;
}

bool run_go_on(struct run *run, double progress)
{
	const char *broken = run->stream ? stream_broken(run->stream) : NULL;
	double elapsed = seconds_since(run->start_ns);

	run->progress = progress;
	if (broken)
		run_fail(run, "%s", broken);
	if (run->failed || (progress >= 1 && elapsed >= run->options->seconds))
		return false;
	if (elapsed < fmax(run->share, run->options->seconds))
		return true;
	if (progress < pace_floor(run->options->scale))
		run_too_slow(run, progress);
	return false;
}

double run_progress(const struct run *run, uint64_t done, uint64_t goal)
{
	return fmin(1, (double)done / (double)run_goal(run, goal));
}

uint64_t run_goal(const struct run *run, uint64_t goal)
{
	double scaled = (double)goal * run->options->scale;

	return scaled < 1 ? 1 : (uint64_t)scaled;
}

void run_count_moved(struct run *run)
{
	struct block_map now;

	block_map_read(&now, run->fd, run->layout.file_bytes);
	run->counters->blocks_moved += block_map_moved(&run->last_map, &now);
	block_map_free(&now);
}

/* With a write still in flight nothing can be trusted or torn down, so this ends the program. */
static void __attribute__((noreturn)) give_up(struct run *run)
{
	run_fail(run, "writes never completed: %s",
		 stream_broken(run->stream) ? stream_broken(run->stream) : "no completion in time");
	control_end(run->control, VERDICT_FAIL, run->reason);
	control_done(run->control, VERDICT_FAIL);
	exit(1);
}

void run_quiesce(struct run *run)
{
	if (!stream_pause(run->stream))
		give_up(run);
}

struct engine *run_open_engine(struct run *run)
{
	const struct options *o = run->options;
	const struct device_pair *device = &o->devices[run->translation];
	struct engine_config config = {
		.device = device->target,
		.peer = device->writer,
		.translation = run->translation,
		.explicit_mr = o->explicit_mr,
		.qps = o->qps,
		.depth = o->depth,
		.ack_timeout = run->translation == TRANSLATE_LOSSY ? o->ack_timeout : 0,
		.drop_one_in = o->sabotage == SABOTAGE_DROP ? 50 : 0,
		.target = run->mapping,
		.target_bytes = run->layout.file_bytes,
		.source = run->source,
		.source_bytes = stream_source_bytes(o->qps, o->depth),
	};

	return o->cpu_engine ? engine_open_cpu(&config) : engine_open_verbs(&config);
}

/* The regions' own tables have pages of 4 KiB, whatever the kernel maps. */
uint64_t run_fault_unit(const struct run *run)
{
	bool large = run->mapping_mode == MAPPING_2M && run->translation != TRANSLATE_ODP;

	return large ? HUGE_BLOCK : BLOCK;
}

struct stream_config run_stream_config(struct run *run)
{
	return (struct stream_config){
		.engine = run->engine,
		.ledger = &run->ledger,
		.counters = run->counters,
		.target = run->mapping,
		.source = run->source,
		.depth = run->options->depth,
		.touch_unit = run_fault_unit(run),
		.loses = run->translation == TRANSLATE_LOSSY,
		.seed = run->id,
	};
}

static void *map_source(const struct run *run)
{
	size_t bytes = stream_source_bytes(run->options->qps, run->options->depth);
	void *source = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (source == MAP_FAILED)
		die("out of memory for the records: %zu bytes", bytes);
	return source;
}

/* The file, every slot of it filled by write(2), in extents that suit the mode. */
static void make_file(struct run *run)
{
	uint64_t bytes = run->layout.file_bytes;

	run->fd = fs_create_file(&run->options->fs, FILE_NAME);
	if (run->mapping_mode == MAPPING_2M)
		fs_hint_extent_size(run->fd, HUGE_BLOCK);
	fs_truncate(run->fd, bytes);
	fill_records(run, run->fd, 0, bytes, INITIAL);
	fs_sync(run->fd);
	block_map_read(&run->last_map, run->fd, bytes);
	if (run->mapping_mode == MAPPING_2M && block_map_huge_bytes(&run->last_map) < bytes / 10 * 9)
		run_fail(run, "only %" PRIu64 " of %" PRIu64 " MiB lie in aligned extents of 2 MiB",
			 block_map_huge_bytes(&run->last_map) / MIB, bytes / MIB);
	run->mapping = fs_map(run->fd, bytes, run->mapping_mode);
}

/* Fails the run if the kernel mapped the file with another page size than the mode wants. */
static void check_mappings(struct run *run)
{
	uint64_t huge;

	/* One write by the CPU, so that there is at least one mapping; it changes nothing. */
	__atomic_fetch_add((uint64_t *)run->mapping, 0, __ATOMIC_SEQ_CST);
	huge = fs_huge_mapped(run->mapping, run->layout.file_bytes);
	if (run->mapping_mode == MAPPING_2M && huge < HUGE_BLOCK)
		run_fail(run, "the kernel mapped no 2 MiB page of the file");
	if (run->mapping_mode == MAPPING_4K && huge)
		run_fail(run, "the kernel mapped %" PRIu64 " bytes by 2 MiB pages", huge);
}

static void begin(struct run *run, const struct scenario *scenario)
{
	const struct options *o = run->options;

	layout_build(&run->layout, o->file_bytes, o->qps, o->file_bytes / 4 * scenario->tail_quarters, run->id);
	ledger_init(&run->ledger, &run->layout, run->id, INITIAL);
	run->source = map_source(run);
	make_file(run);
	check_mappings(run);
	run->start_ns = now_ns();
	control_begin(run->control, run->counters);
	if (scenario->bare)
		return;
	run->engine = run_open_engine(run);
	struct stream_config config = run_stream_config(run);
	config.flush = scenario->flush && engine_durability(run->engine);
	run->stream = stream_start(&config);
}

/* Drains, reads everything back, and reads it back once more from a filesystem mounted anew. */
static void finish(struct run *run, const struct scenario *scenario)
{
	const struct filesystem *fs = &run->options->fs;

	if (!scenario->bare) {
		const char *broken = stream_broken(run->stream);

		if (broken)
			run_fail(run, "%s", broken);
		if (!stream_stop(run->stream))
			give_up(run);
		run->engine->ops->close(run->engine);
		run->stream = NULL;
	}
	run_count_moved(run);
	sabotage_file(run, SABOTAGE_FLIP, run->fd, 0, run->layout.file_bytes);
	verify_file(run, run->fd);
	fs_unmap(run->mapping, run->layout.file_bytes);
	fs_sync(run->fd);
	close(run->fd);
	if (!fs->ours)
		return;
	fs_unmount(fs);
	fs_mount(fs);
	run->fd = fs_open_file(fs, FILE_NAME);
	verify_file(run, run->fd);
	close(run->fd);
}

static void clean_up(struct run *run)
{
	munmap(run->source, stream_source_bytes(run->options->qps, run->options->depth));
	block_map_free(&run->last_map);
	ledger_free(&run->ledger);
	layout_free(&run->layout);
	munmap(run->counters, sizeof(*run->counters));
	fs_remove(&run->options->fs, FILE_NAME);
}

/* A pass that did less than planned says so. */
static void say_how_far(struct run *run)
{
	char remark[sizeof(run->reason)];

	if (run->failed || run->slow || run->progress >= 1)
		return;
	memcpy(remark, run->reason, sizeof(remark));
	snprintf(run->reason, sizeof(run->reason), "%.0f %% of its goals in its share of the time%s%.300s",
		 run->progress * 100, *remark ? "; " : "", remark);
}

enum verdict run_scenario(const struct options *options, struct control *control, const struct scenario *scenario,
			  enum translation translation, enum mapping_mode mapping, double share)
{
	static uint64_t runs;
	const struct scenario refusal = { .name = scenario->name, .bare = true, .run = pinned_refusal };
	struct options smaller = *options;
	enum verdict verdict;
	struct run run = {
		.options = options,
		.control = control,
		.counters = xshared(sizeof(struct counters)),
		.translation = translation,
		.mapping_mode = mapping,
		.share = share,
		.progress = 1,
		.id = mix64(options->seed + 1000 * ++runs),
	};

	run.rng.state = mix64(run.id);
	control_subject(control, scenario->name, translation_names[translation], mapping_name(mapping));
	if (translation == TRANSLATE_PINNED) {
		/* A refusal does not need much of a file. */
		smaller.file_bytes = 4 * LAYOUT_UNIT;
		run.options = &smaller;
		if (scenario != &scenario_pinned)
			scenario = &refusal;
	}
	begin(&run, scenario);
	if (!run.failed)
		scenario->run(&run);
	if (scenario->flush && run.engine && engine_durability(run.engine))
		run_note(&run, "each record was FLUSHed until it was %s", engine_durability(run.engine));
	finish(&run, scenario);
	say_how_far(&run);
	verdict = run.failed ? VERDICT_FAIL : run.slow ? VERDICT_SLOW : VERDICT_PASS;
	control_end(control, verdict, run.reason);
	clean_up(&run);
	return verdict;
}
