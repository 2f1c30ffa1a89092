/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The control channel to the host: one JSON object per line.
 *
 *   {"event":"plan","kernel":..,"file_bytes":..,"queue_pairs":..,"scale":..,"speed":{"fault_ns":..,"copy_rate":..},
 *    "scenarios":[subject,..]}
 *   {"event":"begin", subject}
 *   {"event":"progress", subject, "seconds":.., counters}                      about twice a second
 *   {"event":"end", subject, "result":"pass"|"slow"|"fail","reason":..,"seconds":.., counters}
 *   {"event":"check","mapping":..,"result":"pass"|"fail"}      xfs_repair -n, after all scenarios of a mapping
 *   {"event":"done","result":"pass"|"slow"|"fail"}
 *
 * A subject is "scenario":..,"mode":"pasid"|"odp"|"pinned"|"remote"|"lossy","mapping":"4k"|"2m".
 * The counters are operations, writes, bytes_written, blocks_moved, bytes_verified, bytes_wrong and touches.
 * No DMA is in flight outside begin and end. The same events go to standard output in words.
 */
#ifndef DEMO_CONTROL_H
#define DEMO_CONTROL_H

#include "pace.h"
#include "stream.h"

struct control;

/* In order: the verdict of several scenarios is the greatest. */
enum verdict {
	VERDICT_PASS,
	VERDICT_SLOW,	/* nothing wrong, but too little done to prove anything */
	VERDICT_FAIL,
};

/* Opens `path`; with NULL, events are discarded. */
struct control *control_open(const char *path);

/* What the next events are about. */
void control_subject(struct control *control, const char *scenario, const char *mode, const char *mapping);

/* `scenarios` is the finished JSON array. */
void control_plan(struct control *control, uint64_t file_bytes, uint32_t qps, double scale, const struct speed *speed,
		  const char *scenarios);

/* Also starts the progress lines, which come from a thread of their own until control_end(). */
void control_begin(struct control *control, const struct counters *counters);
void control_end(struct control *control, enum verdict verdict, const char *reason);
void control_check(struct control *control, const char *mapping, bool pass);
void control_done(struct control *control, enum verdict verdict);

#endif
