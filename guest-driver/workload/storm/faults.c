// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * On-demand regions with tables of their own are counted by the driver, region by region: `rdma stat show mr`
 * prints the pages, and the events and commands that handled them. Faults of regions on the process' addresses
 * are page requests to the IOMMU, which its trace event prq_report counts.
 */
#define _GNU_SOURCE
#include "faults.h"
#include "kernel.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define TRACING		"/sys/kernel/tracing"
#define TRIGGER		TRACING "/events/intel_iommu/prq_report/trigger"
#define HISTOGRAM	TRACING "/events/intel_iommu/prq_report/hist"
#define COUNT_BY_DEVICE	"hist:keys=dev"

void faults_begin(void)
{
	if (access(TRACING "/events", F_OK))
		mount("tracefs", TRACING, "tracefs", 0, NULL);
	/* A program that was killed may have left its trigger. A kernel without the event counts nothing. */
	knob_set(TRIGGER, "!" COUNT_BY_DEVICE);
	knob_set(TRIGGER, COUNT_BY_DEVICE);
}

static uint64_t number_behind(const char *line, const char *name)
{
	const char *at = strstr(line, name);
	uint64_t value = 0;

	if (at)
		sscanf(at + strlen(name), "%" SCNu64, &value);
	return value;
}

static uint64_t page_requests(void)
{
	FILE *file = fopen(HISTOGRAM, "re");
	char line[256];
	uint64_t sum = 0;

	while (file && fgets(line, sizeof(line), file))
		sum += number_behind(line, "hitcount: ");
	if (file)
		fclose(file);
	knob_set(TRIGGER, "!" COUNT_BY_DEVICE);
	return sum;
}

void faults_end(struct fault_counts *counts)
{
	FILE *pipe = popen("rdma stat show mr 2>/dev/null", "re");
	char line[512];

	*counts = (struct fault_counts){ .faults = page_requests() };
	while (pipe && fgets(line, sizeof(line), pipe)) {
		counts->faults += number_behind(line, "page_faults_handled ");
		counts->pages_faulted += number_behind(line, "page_faults ");
		counts->invalidations += number_behind(line, "page_invalidations_handled ");
		counts->pages_invalidated += number_behind(line, "page_invalidations ");
	}
	if (pipe)
		pclose(pipe);
}
