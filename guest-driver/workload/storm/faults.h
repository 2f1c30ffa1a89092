/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the kernel counted of the NIC's page faults. */
#ifndef STORM_FAULTS_H
#define STORM_FAULTS_H

#include <stdint.h>

struct fault_counts {
	uint64_t faults;		/* page requests, or fault events */
	uint64_t invalidations;		/* commands that took pages away from regions with tables */
	uint64_t pages_faulted, pages_invalidated;	/* by these, in 4 KiB pages */
};

void faults_begin(void);

/* The regions must still exist. */
void faults_end(struct fault_counts *counts);

#endif
