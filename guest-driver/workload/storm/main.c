// SPDX-License-Identifier: Apache-2.0 OR MIT
/* refault-storm: DMA checked against a ledger, while the kernel does whatever it can to the memory. */
#define _GNU_SOURCE
#include "run.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct disturber *const disturbers[] = {
	&disturber_dontneed, &disturber_mremap, &disturber_mprotect, &disturber_fork, &disturber_thp,
	&disturber_migrate, &disturber_swap, &disturber_ksm, &disturber_truncate,
};

#define COUNT	(sizeof(disturbers) / sizeof(*disturbers))

static void usage(int status)
{
	puts("usage: refault-storm [OPTION]... [STORM]...\n"
	     "Runs the storms named, or each and then `all` of them at once; one line of result for each.\n"
	     "  --device NAME    RDMA device [the first]\n"
	     "  --engine NAME    what copies: verbs, or cpu: the kernel in place of a device [verbs]\n"
	     "  --pmem DEVICE    persistent memory for truncate; it is formatted [/dev/pmem0]\n"
	     "  --scale X        disturbances, relative to the usual [1]\n"
	     "  --seed N         of all random choices [1]\n"
	     "  --sabotage       flip one bit: every storm must fail\n"
	     "  --list           the storms\n"
	     "Exit status: 0 all passed, 1 one failed, 2 it could not run, 3 no progress.\n"
	     "REFAULT_ODP_MODE=pasid|odp in the environment chooses how the NIC translates on-demand regions.");
	exit(status);
}

static void list(void)
{
	for (size_t i = 0; i < COUNT; i++)
		printf("%-10s %s\n", disturbers[i]->name, disturbers[i]->what);
	printf("%-10s %s\n", "all", "all of these at once");
	exit(0);
}

static bool is_cpu(const char *engine)
{
	if (strcmp(engine, "cpu") && strcmp(engine, "verbs"))
		die("--engine %s: there are verbs and cpu", engine);
	return !strcmp(engine, "cpu");
}

static double number(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value > 0 && value < 1e9))
		die("%s is not a positive number", text);
	return value;
}

static void parse(struct storm_options *options, int argc, char **argv)
{
	enum { DEVICE = 1, ENGINE, PMEM, SCALE, SEED, SABOTAGE, LIST, HELP };
	static const struct option known[] = {
		{ "device", required_argument, NULL, DEVICE }, { "engine", required_argument, NULL, ENGINE },
		{ "pmem", required_argument, NULL, PMEM },     { "scale", required_argument, NULL, SCALE },
		{ "seed", required_argument, NULL, SEED },     { "sabotage", no_argument, NULL, SABOTAGE },
		{ "list", no_argument, NULL, LIST },	       { "help", no_argument, NULL, HELP },
		{ 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) >= 0)
		switch (option) {
		case DEVICE:
			options->device = optarg;
			break;
		case ENGINE:
			options->cpu_engine = is_cpu(optarg);
			break;
		case PMEM:
			options->fs.device = optarg;
			break;
		case SCALE:
			options->scale = number(optarg);
			break;
		case SEED:
			options->seed = (uint64_t)number(optarg);
			break;
		case SABOTAGE:
			options->sabotage = true;
			break;
		case LIST:
			list();
			break;
		case HELP:
			usage(0);
			break;
		default:
			usage(2);
		}
}

static bool run_one(struct storm_options *options, const char *name)
{
	for (size_t i = 0; i < COUNT; i++)
		if (!strcmp(disturbers[i]->name, name))
			return storm_run(options, name, &disturbers[i], 1);
	if (!strcmp(name, "all"))
		return storm_run(options, name, disturbers, COUNT);
	die("%s: no such storm (see --list)", name);
}

/* Whether a storm needs a file system. */
static bool wants_file(char **names, int count)
{
	for (int i = 0; i < count; i++)
		if (!strcmp(names[i], "all") || !strcmp(names[i], disturber_truncate.name))
			return true;
	return !count;
}

int main(int argc, char **argv)
{
	struct storm_options options = {
		.scale = 1,
		.seed = 1,
		.fs = { .device = "/dev/pmem0", .mount = "/mnt/storm", .ours = true },
	};
	bool pass = true, file;

	parse(&options, argc, argv);
	file = wants_file(argv + optind, argc - optind);
	if (file)
		fs_create(&options.fs);
	for (int i = optind; i < argc; i++)
		pass &= run_one(&options, argv[i]);
	for (size_t i = 0; i < COUNT && optind == argc; i++)
		pass &= run_one(&options, disturbers[i]->name);
	if (optind == argc)
		pass &= run_one(&options, "all");
	if (file && !fs_check(&options.fs)) {
		puts("  wrong: xfs_repair finds the file system damaged");
		pass = false;
	}
	if (file)
		fs_unmount(&options.fs);
	return pass ? 0 : 1;
}
