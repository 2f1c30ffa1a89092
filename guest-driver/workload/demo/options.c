// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "options.h"

#include "layout.h"
#include "stream.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	OPT_ENGINE = 256, OPT_DEVICE, OPT_MR, OPT_PMEM, OPT_MOUNT, OPT_DIRECTORY, OPT_FILE_SIZE, OPT_SCENARIO,
	OPT_MODE, OPT_MAPPING, OPT_QPS, OPT_DEPTH, OPT_SECONDS, OPT_BUDGET, OPT_SCALE, OPT_CONTROL, OPT_SEED, OPT_SABOTAGE,
	OPT_LIST, OPT_HELP, OPT_REMOTE, OPT_LOSSY, OPT_ACK_TIMEOUT,
};

static const struct option table[] = {
	{ "engine", required_argument, NULL, OPT_ENGINE },
	{ "device", required_argument, NULL, OPT_DEVICE },
	{ "remote", required_argument, NULL, OPT_REMOTE },
	{ "lossy", required_argument, NULL, OPT_LOSSY },
	{ "ack-timeout", required_argument, NULL, OPT_ACK_TIMEOUT },
	{ "mr", required_argument, NULL, OPT_MR },
	{ "pmem", required_argument, NULL, OPT_PMEM },
	{ "mount", required_argument, NULL, OPT_MOUNT },
	{ "directory", required_argument, NULL, OPT_DIRECTORY },
	{ "file-size", required_argument, NULL, OPT_FILE_SIZE },
	{ "scenario", required_argument, NULL, OPT_SCENARIO },
	{ "mode", required_argument, NULL, OPT_MODE },
	{ "mapping", required_argument, NULL, OPT_MAPPING },
	{ "qps", required_argument, NULL, OPT_QPS },
	{ "depth", required_argument, NULL, OPT_DEPTH },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "budget", required_argument, NULL, OPT_BUDGET },
	{ "scale", required_argument, NULL, OPT_SCALE },
	{ "control", required_argument, NULL, OPT_CONTROL },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "sabotage", required_argument, NULL, OPT_SABOTAGE },
	{ "list", no_argument, NULL, OPT_LIST },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

const char *const translation_names[TRANSLATIONS] = {
	[TRANSLATE_PASID] = "pasid",
	[TRANSLATE_ODP] = "odp",
	[TRANSLATE_PINNED] = "pinned",
	[TRANSLATE_CPU] = "cpu",
	[TRANSLATE_REMOTE] = "remote",
	[TRANSLATE_LOSSY] = "lossy",
};

static const char usage[] =
	"refault-demo: RDMA WRITEs into a DAX file that its filesystem keeps moving, with everything checked.\n"
	"\n"
	"  --scenario NAME    only this one; may be repeated (see --list)\n"
	"  --mode MODE        pasid, odp, pinned, remote or lossy; may be repeated [all]\n"
	"  --mapping 4k|2m|both  size of the file's mappings [both]\n"
	"  --scale X          multiplies every scenario's goals [1, less on a slow machine]\n"
	"  --seconds S        least time for each scenario [2]\n"
	"  --budget S         time for all scenarios, shared out among them [540]\n"
	"  --file-size SIZE   size of the file, a multiple of 4M, at least 16M [64M]\n"
	"  --qps N            queue pairs that write at the same time, 2 to 16 [4]\n"
	"  --depth N          writes in flight on each, 1 to 64 [8]\n"
	"  --pmem DEVICE      persistent memory to format [/dev/pmem0]\n"
	"  --mount DIR        where to mount it [/mnt/refault]\n"
	"  --directory DIR    use this directory of an XFS with DAX as it is: no mkfs, no mount\n"
	"  --device NAME      RDMA device [the first]\n"
	"  --remote TARGET,WRITER  RDMA devices of mode remote: the second writes to the first one's memory\n"
	"  --lossy TARGET,WRITER   the same of mode lossy, whose wire loses packets\n"
	"  --ack-timeout CODE  of mode lossy, for 4.096 us * 2^CODE [by this machine's speed]\n"
	"  --mr KIND          implicit: one on-demand region over the address space; explicit: over the buffers [implicit]\n"
	"  --engine KIND      verbs, or cpu: the processor's own stores instead of a device's writes [verbs]\n"
	"  --control FILE     also write one JSON line per event to this file\n"
	"  --seed N           of all random choices [1]\n"
	"  --sabotage KIND    flip, drop, copy or successor: break one thing, and the check must fail\n"
	"  --list             print the scenarios\n"
	"\n"
	"Exit status: 0 if every scenario passed, 1 if one failed, 2 if the set-up did not work, 3 if none failed but some\n"
	"were too slow to prove anything.\n";

static double positive_number(const char *name, const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value > 0 && value < 1e6))
		die("--%s %s: must be above 0 and below 1000000", name, text);
	return value;
}

static uint32_t count_between(const char *name, const char *text, uint32_t low, uint32_t high)
{
	uint64_t value;

	if (!parse_size(text, &value) || value < low || value > high)
		die("--%s %s: must be %u to %u", name, text, low, high);
	return (uint32_t)value;
}

/* The index of `text` in a NULL-terminated list of words. */
static int word(const char *name, const char *text, const char *const *words)
{
	for (int i = 0; words[i]; i++)
		if (!strcmp(text, words[i]))
			return i;
	die("--%s %s: unknown (see --help)", name, text);
}

static void set_mapping(struct options *o, const char *text)
{
	static const char *const mappings[] = { "4k", "2m", "both", NULL };
	int mapping = word("mapping", text, mappings);

	o->mapping_4k = mapping != 1;
	o->mapping_2m = mapping != 0;
}

static void set_paths(struct options *o, int option, const char *text)
{
	if (option == OPT_PMEM) {
		o->fs.device = text;
		return;
	}
	if (strlen(text) >= sizeof(o->fs.mount))
		die("%s: path too long", text);
	strcpy(o->fs.mount, text);
	o->mkfs &= option == OPT_MOUNT;
}

static int mode_of(const char *text)
{
	for (int mode = 0; mode < TRANSLATIONS; mode++)
		if (mode != TRANSLATE_CPU && !strcmp(text, translation_names[mode]))
			return mode;
	die("--mode %s: unknown (see --help)", text);
}

static void set_pair(struct device_pair *pair, const char *name, const char *text)
{
	const char *comma = strchr(text, ',');

	if (!comma || comma == text || !comma[1])
		die("--%s %s: give two RDMA devices, as in refault_0,refault_1", name, text);
	pair->target = strndup(text, (size_t)(comma - text));
	pair->writer = comma + 1;
	if (!pair->target)
		die("out of memory");
}

/* A mode over a wire needs its devices, and is one of all modes if it has them. */
static unsigned int wire_modes(const struct options *o)
{
	unsigned int modes = 0;

	for (int mode = TRANSLATE_REMOTE; mode <= TRANSLATE_LOSSY; mode++) {
		if (o->devices[mode].writer)
			modes |= 1u << mode;
		else if (o->modes & 1u << mode)
			die("--mode %s: give its devices with --%s TARGET,WRITER", translation_names[mode],
			    translation_names[mode]);
	}
	return modes;
}

static void set_words(struct options *o, int option, const char *text)
{
	static const char *const engines[] = { "verbs", "cpu", NULL };
	static const char *const kinds[] = { "implicit", "explicit", NULL };
	static const char *const sabotages[] = { "none", "flip", "drop", "copy", "successor", NULL };

	switch (option) {
	case OPT_ENGINE:
		o->cpu_engine = word("engine", text, engines) == 1;
		break;
	case OPT_MR:
		o->explicit_mr = word("mr", text, kinds) == 1;
		break;
	case OPT_SABOTAGE:
		o->sabotage = (enum sabotage)word("sabotage", text, sabotages);
		break;
	case OPT_MODE:
		o->modes |= 1u << mode_of(text);
		break;
	case OPT_MAPPING:
		set_mapping(o, text);
		break;
	case OPT_SCENARIO:
		if (o->scenario_count == MAX_SCENARIOS)
			die("--scenario: at most %d", MAX_SCENARIOS);
		o->scenarios[o->scenario_count++] = text;
		break;
	case OPT_DEVICE:
		for (int mode = 0; mode <= TRANSLATE_PINNED; mode++)
			o->devices[mode].target = text;
		break;
	case OPT_REMOTE:
		set_pair(&o->devices[TRANSLATE_REMOTE], "remote", text);
		break;
	case OPT_LOSSY:
		set_pair(&o->devices[TRANSLATE_LOSSY], "lossy", text);
		break;
	case OPT_CONTROL:
		o->control = text;
		break;
	}
}

static void set_numbers(struct options *o, int option, const char *text)
{
	switch (option) {
	case OPT_FILE_SIZE:
		if (!parse_size(text, &o->file_bytes) || o->file_bytes % LAYOUT_UNIT ||
		    o->file_bytes < 4 * LAYOUT_UNIT || o->file_bytes > 16 * 1024 * MIB)
			die("--file-size %s: must be a multiple of 4M, 16M to 16G", text);
		break;
	case OPT_QPS:
		o->qps = count_between("qps", text, 2, MAX_QPS);
		break;
	case OPT_DEPTH:
		o->depth = count_between("depth", text, 1, MAX_DEPTH);
		break;
	case OPT_ACK_TIMEOUT:
		o->ack_timeout = (uint8_t)count_between("ack-timeout", text, 1, 31);
		break;
	case OPT_SECONDS:
		o->seconds = positive_number("seconds", text);
		break;
	case OPT_BUDGET:
		o->budget = positive_number("budget", text);
		break;
	case OPT_SCALE:
		o->scale = positive_number("scale", text);
		break;
	case OPT_SEED:
		if (!parse_size(text, &o->seed))
			die("--seed %s: not a number", text);
		break;
	}
}

static void set_option(struct options *o, int option, const char *text)
{
	switch (option) {
	case OPT_HELP:
		fputs(usage, stdout);
		exit(0);
	case OPT_LIST:
		o->list = true;
		break;
	case OPT_PMEM:
	case OPT_MOUNT:
	case OPT_DIRECTORY:
		set_paths(o, option, text);
		break;
	case OPT_FILE_SIZE:
	case OPT_QPS:
	case OPT_DEPTH:
	case OPT_ACK_TIMEOUT:
	case OPT_SECONDS:
	case OPT_BUDGET:
	case OPT_SCALE:
	case OPT_SEED:
		set_numbers(o, option, text);
		break;
	case '?':
		exit(2);
	default:
		set_words(o, option, text);
	}
}

void options_parse(struct options *options, int argc, char **argv)
{
	unsigned int over_wires;
	int option;

	*options = (struct options){
		.fs = { .device = "/dev/pmem0", .mount = "/mnt/refault" },
		.mkfs = true,
		.file_bytes = 64 * MIB,
		.qps = 4,
		.depth = 8,
		.mapping_4k = true,
		.mapping_2m = true,
		.seconds = 2,
		.budget = 540,
		.seed = 1,
	};
	while ((option = getopt_long(argc, argv, "", table, NULL)) != -1)
		set_option(options, option, optarg);
	if (optind < argc)
		die("unexpected argument %s (see --help)", argv[optind]);
	if (options->sabotage == SABOTAGE_DROP && !options->cpu_engine)
		die("--sabotage drop needs --engine cpu");
	over_wires = wire_modes(options);
	if (options->cpu_engine)
		options->modes = 1u << TRANSLATE_CPU;
	options->wires_once = !options->modes;
	if (!options->modes)
		options->modes = 1u << TRANSLATE_PASID | 1u << TRANSLATE_ODP | 1u << TRANSLATE_PINNED | over_wires;
	options->fs.ours = options->mkfs;
}
