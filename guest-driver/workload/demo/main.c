// SPDX-License-Identifier: Apache-2.0 OR MIT
#define _GNU_SOURCE
#include "run.h"

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

static bool over_wire(enum translation mode)
{
	return mode == TRANSLATE_REMOTE || mode == TRANSLATE_LOSSY;
}

/* Whether the scenario and the mode are among those asked for. */
static bool wanted(const struct options *options, const struct scenario *scenario, enum translation mode,
		   enum mapping_mode mapping)
{
	if (!(options->modes & 1u << mode))
		return false;
	if (scenario == &scenario_pinned && mode != TRANSLATE_PINNED)
		return false;
	/* A peer's process is not the file's: that is what kill is about. */
	if (scenario == &scenario_kill && over_wire(mode))
		return false;
	if (over_wire(mode) && options->wires_once && options->mapping_4k && mapping == MAPPING_2M)
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

typedef enum verdict visit(struct options *options, struct control *control, const struct scenario *scenario,
		   enum translation mode, enum mapping_mode mapping);

static enum verdict worse(enum verdict one, enum verdict other)
{
	return one > other ? one : other;
}

static enum verdict for_modes(struct options *options, struct control *control, enum mapping_mode mapping, visit *visit,
			      bool wires)
{
	enum verdict worst = VERDICT_PASS;

	for (int i = 0; scenarios[i]; i++)
		for (enum translation mode = 0; mode < TRANSLATIONS; mode++)
			if (over_wire(mode) == wires && wanted(options, scenarios[i], mode, mapping))
				worst = worse(worst, visit(options, control, scenarios[i], mode, mapping));
	return worst;
}

/*
 * Scenario by scenario, and each in its modes one after the other: so that a table has them side by side. Modes over a
 * wire come behind all others, in a table of their own.
 */
static enum verdict for_each(struct options *options, struct control *control, enum mapping_mode mapping, visit *visit)
{
	enum verdict worst = for_modes(options, control, mapping, visit, false);

	return worse(worst, for_modes(options, control, mapping, visit, true));
}

static double weight_of(const struct scenario *scenario, enum translation mode)
{
	return mode == TRANSLATE_PINNED ? WEIGHT_REFUSAL : scenario->weight;
}

/* The plan as it grows. */
static struct {
	char text[8000];
	size_t length;
} plan;

static struct pace pace;

static enum verdict plan_one(struct options *options, struct control *control, const struct scenario *scenario,
		     enum translation mode, enum mapping_mode mapping)
{
	size_t room = sizeof(plan.text) - plan.length;

	(void)options;
	(void)control;
	plan.length += (size_t)snprintf(plan.text + plan.length, room,
					"%s{\"scenario\":\"%s\",\"mode\":\"%s\",\"mapping\":\"%s\"}",
					plan.length > 1 ? "," : "", scenario->name, translation_names[mode],
					mapping_name(mapping));
	if (plan.length + 2 > sizeof(plan.text))
		die("the plan is too long");
	pace.weight_left += weight_of(scenario, mode);
	return VERDICT_PASS;
}

static void announce(struct options *options, struct control *control)
{
	struct speed speed = speed_measure();

	if (!options->scale)
		options->scale = speed_scale(&speed);
	if (!options->ack_timeout)
		options->ack_timeout = speed_ack_timeout(&speed);
	plan.length = (size_t)snprintf(plan.text, sizeof(plan.text), "[");
	if (options->mapping_4k)
		for_each(options, control, MAPPING_4K, plan_one);
	if (options->mapping_2m)
		for_each(options, control, MAPPING_2M, plan_one);
	strcpy(plan.text + plan.length, "]");
	control_plan(control, options->file_bytes, options->qps, options->scale, &speed, plan.text);
	pace.budget = options->budget;
	pace.start_ns = now_ns();
}

static enum verdict run_one(struct options *options, struct control *control, const struct scenario *scenario,
		    enum translation mode, enum mapping_mode mapping)
{
	return run_scenario(options, control, scenario, mode, mapping, pace_share(&pace, weight_of(scenario, mode)));
}

static enum verdict run_mapping(struct options *options, struct control *control, enum mapping_mode mapping)
{
	enum verdict verdict;

	if (options->mkfs)
		fs_create(&options->fs);
	verdict = for_each(options, control, mapping, run_one);
	if (options->mkfs) {
		bool consistent = fs_check(&options->fs);

		control_check(control, mapping_name(mapping), consistent);
		fs_unmount(&options->fs);
		if (!consistent)
			verdict = VERDICT_FAIL;
	}
	return verdict;
}

int main(int argc, char **argv)
{
	struct options options;
	enum verdict verdict = VERDICT_PASS;
	struct control *control;

	options_parse(&options, argc, argv);
	if (options.list) {
		list();
		return 0;
	}
	check_names(&options);
	signal(SIGPIPE, SIG_IGN);
	control = control_open(options.control);
	announce(&options, control);
	if (options.mapping_4k)
		verdict = run_mapping(&options, control, MAPPING_4K);
	if (options.mapping_2m)
		verdict = worse(verdict, run_mapping(&options, control, MAPPING_2M));
	control_done(control, verdict);
	return verdict == VERDICT_PASS ? 0 : verdict == VERDICT_SLOW ? 3 : 1;
}
