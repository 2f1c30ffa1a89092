/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Lines to the host. What a line means takes effect when the host handles it, and a busy host may do so late: so it sends
 * the line back, and the program waits for that.
 */
#ifndef LOAD_NOTIFY_H
#define LOAD_NOTIFY_H

#include "common/util.h"

struct host {
	const char *path;	/* device, or NULL: there is no host */
	unsigned int wait_ms;	/* the longest wait for an answer; 0 after the first that did not come */
};

/*
 * Sends `line`, which has no line end, and waits for the answer; true if it came. A host that does not answer is reported
 * once, and the program goes on. There is no answer, and no wait, if the path is not a terminal. Exits if the line cannot
 * be sent.
 */
bool host_notify(struct host *host, const char *line);

#endif
