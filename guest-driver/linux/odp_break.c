// SPDX-License-Identifier: GPL-2.0
/*
 * Fault injection: answer page faults as a buggy driver would, to test that
 * only the requests that need these pages fail.
 *
 *   echo never >/sys/module/refault_rdma/parameters/odp_break
 */

#include <linux/delay.h>
#include <linux/module.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "odp.h"

static const char *const refault_breaks[] = {
	[REFAULT_BREAK_NONE] = "none",
	[REFAULT_BREAK_NEVER] = "never",
	[REFAULT_BREAK_TWICE] = "twice",
	[REFAULT_BREAK_LATE] = "late",
	[REFAULT_BREAK_REFUSE] = "refuse",
};

static enum refault_break odp_break;

static int refault_break_set(const char *text, const struct kernel_param *param)
{
	int kind = sysfs_match_string(refault_breaks, text);

	if (kind < 0) {
		pr_err(REFAULT_DRV_NAME ": unknown odp_break=%s: use none, never, twice, late or refuse\n",
		       text);
		return kind;
	}
	WRITE_ONCE(odp_break, kind);
	return 0;
}

static int refault_break_get(char *text, const struct kernel_param *param)
{
	return sysfs_emit(text, "%s\n", refault_breaks[READ_ONCE(odp_break)]);
}

static const struct kernel_param_ops refault_break_ops = {
	.set = refault_break_set,
	.get = refault_break_get,
};
module_param_cb(odp_break, &refault_break_ops, NULL, 0644);
MODULE_PARM_DESC(odp_break,
		 "Fault injection into answers to page faults: none, never, twice, late or refuse");

static unsigned int odp_break_ms = 3000;
module_param(odp_break_ms, uint, 0644);
MODULE_PARM_DESC(odp_break_ms, "Delay of \"late\", in milliseconds");

/* The fault to inject into the next answer. Sleeps here if it is "late". */
enum refault_break refault_next_break(void)
{
	enum refault_break kind = READ_ONCE(odp_break);

	if (kind == REFAULT_BREAK_LATE)
		msleep(READ_ONCE(odp_break_ms));
	return kind;
}
