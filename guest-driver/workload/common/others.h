/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Other users of the device, for checks that what is wrong with one of them does not concern the others. */
#ifndef COMMON_OTHERS_H
#define COMMON_OTHERS_H

#include "pairs.h"

/* Prints "ok" or "NOT OK", and what; returns `holds`. */
bool check(bool holds, const char *what);

/* Posts an RDMA WRITE of the region's first bytes, or exits. */
void post_write(struct ibv_qp *qp, struct ibv_mr *from, uint32_t length, uint64_t to, uint32_t rkey);

/* One more use of the device, from opening to closing: true if the right bytes arrive. */
bool others_work(void);

/* The same in a process of its own: a hang there does not hang the caller. */
bool others_work_elsewhere(void);

/* Waits for the end of a child; false if that takes too long. */
bool ends(pid_t child, int *status);

#endif
