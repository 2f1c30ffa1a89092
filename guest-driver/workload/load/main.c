// SPDX-License-Identifier: Apache-2.0 OR MIT
#include "load.h"

int main(int argc, char **argv)
{
	static struct load_options options;
	static struct load load;

	load_options_parse(&options, argc, argv);
	load_target_open(&load, &options);
	load_run(&load, &options);
	load_target_close(&load);
	/* Wrong bytes fail the run. */
	return load.wrong != 0;
}
