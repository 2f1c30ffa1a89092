// SPDX-License-Identifier: Apache-2.0 OR MIT
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

static uint64_t number(const char *name, const char *text)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text == '-')
		die("--%s %s: must be a number", name, text);
	return value;
}

static double rate(const char *name, const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value > 0))
		die("--%s %s: must be a rate above zero", name, text);
	return value;
}

static enum churn_operation churn_of(const char *text)
{
	if (!strcmp(text, "evict"))
		return CHURN_EVICT;
	if (!strcmp(text, "move"))
		return CHURN_MOVE;
	if (!strcmp(text, "write-protect"))
		return CHURN_PROTECT;
	die("--churn %s: must be evict, move or write-protect", text);
}

static void check(const struct load_options *options)
{
	uint64_t message = options->message_bytes;

	if (!options->requests || !options->results)
		die("--requests FILE and --results FILE are needed");
	if (!message || message > UINT32_MAX || options->region_bytes < message)
		die("--message-bytes and --region-bytes are needed, the region no smaller than a message");
	if (!options->queue_pairs || options->queue_pairs > 4096 || !options->depth || options->depth > 4096)
		die("--queue-pairs and --depth must be 1 to 4096");
	if (options->churn && (!options->churn_pages || !options->churn_per_second))
		die("--churn needs --churn-per-second and --churn-pages");
}

void load_options_parse(struct load_options *options, int argc, char **argv)
{
	static const struct option known[] = {
		{ "requests", required_argument, NULL, 'r' },	  { "results", required_argument, NULL, 'o' },
		{ "control", required_argument, NULL, 'c' },	  { "message-bytes", required_argument, NULL, 'm' },
		{ "region-bytes", required_argument, NULL, 'b' }, { "queue-pairs", required_argument, NULL, 'q' },
		{ "depth", required_argument, NULL, 'd' },	  { "seed", required_argument, NULL, 's' },
		{ "odp", no_argument, NULL, 'O' },		  { "open", no_argument, NULL, 'p' },
		{ "warm", no_argument, NULL, 'w' },		  { "large-pages", no_argument, NULL, 'l' },
		{ "churn", required_argument, NULL, 'x' },	  { "churn-per-second", required_argument, NULL, 'y' },
		{ "churn-pages", required_argument, NULL, 'z' },  { 0 },
	};
	int option, index = 0;

	while ((option = getopt_long(argc, argv, "", known, &index)) != -1) {
		const char *name = known[index].name;

		switch (option) {
		case 'r': options->requests = optarg; break;
		case 'o': options->results = optarg; break;
		case 'c': options->control = optarg; break;
		case 'm': options->message_bytes = number(name, optarg); break;
		case 'b': options->region_bytes = number(name, optarg); break;
		case 'q': options->queue_pairs = number(name, optarg); break;
		case 'd': options->depth = number(name, optarg); break;
		case 's': options->seed = number(name, optarg); break;
		case 'O': options->odp = true; break;
		case 'p': options->open = true; break;
		case 'w': options->warm = true; break;
		case 'l': options->large_pages = true; break;
		case 'x': options->churn = churn_of(optarg); break;
		case 'y': options->churn_per_second = rate(name, optarg); break;
		case 'z': options->churn_pages = number(name, optarg); break;
		default: exit(2);
		}
	}
	if (optind != argc)
		die("unexpected argument %s", argv[optind]);
	check(options);
}
