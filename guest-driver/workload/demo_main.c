// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "demo_run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct scenario *const scenarios[] = {
	&scenario_steady, &scenario_reflink_cow, &scenario_exchange, &scenario_punch,
	&scenario_truncate, &scenario_fsync, &scenario_kill, &scenario_pinned, NULL,
};

static void list(void)
{
	for (int i = 0; scenarios[i]; i++)
		printf("%-12s %s\n", scenarios[i]->name, scenarios[i]->what);
}

static bool wanted(const struct options *options, const struct scenario *scenario)
{
	/* Registering memory needs a device. */
	if (options->cpu_engine && scenario == &scenario_pinned)
		return false;
	for (uint32_t i = 0; i < options->scenario_count; i++)
		if (!strcmp(options->scenarios[i], scenario->name))
			return true;
	return options->scenario_count == 0;
}

static void check_names(const struct options *options)
{
	for (uint32_t i = 0; i < options->scenario_count; i++) {
		int known = 0;

		while (scenarios[known] && strcmp(scenarios[known]->name, options->scenarios[i]))
			known++;
		if (!scenarios[known])
			die("--scenario %s: unknown (see --list)", options->scenarios[i]);
	}
}

static void announce(const struct options *options, struct control *control)
{
	char plan[3000] = "[";
	size_t n = 1;

	for (int mode = MAPPING_4K; mode <= MAPPING_2M; mode++)
		for (int i = 0; scenarios[i]; i++)
			if ((mode == MAPPING_4K ? options->mode_4k : options->mode_2m) && wanted(options, scenarios[i]))
				n += (size_t)snprintf(plan + n, sizeof(plan) - n,
						      "%s{\"scenario\":\"%s\",\"mode\":\"%s\"}", n > 1 ? "," : "",
						      scenarios[i]->name, mode == MAPPING_4K ? "4k" : "2m");
	snprintf(plan + n, sizeof(plan) - n, "]");
	control_plan(control, options->file_bytes, options->qps, plan);
}

static bool run_mode(struct options *options, struct control *control, enum mapping_mode mode)
{
	bool pass = true;

	if (options->mkfs)
		fs_create(&options->fs);
	for (int i = 0; scenarios[i]; i++)
		if (wanted(options, scenarios[i]))
			pass &= run_scenario(options, control, scenarios[i], mode);
	if (options->mkfs) {
		bool consistent = fs_check(&options->fs);

		control_check(control, mode == MAPPING_4K ? "4k" : "2m", consistent);
		fs_unmount(&options->fs);
		pass &= consistent;
	}
	return pass;
}

int main(int argc, char **argv)
{
	struct options options;
	struct control *control;
	bool pass = true;

	options_parse(&options, argc, argv);
	if (options.list) {
		list();
		return 0;
	}
	check_names(&options);
	signal(SIGPIPE, SIG_IGN);
	control = control_open(options.control);
	announce(&options, control);
	if (options.mode_4k)
		pass &= run_mode(&options, control, MAPPING_4K);
	if (options.mode_2m)
		pass &= run_mode(&options, control, MAPPING_2M);
	control_done(control, pass);
	return pass ? 0 : 1;
}
