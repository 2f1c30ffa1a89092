// SPDX-License-Identifier: GPL-2.0
/*
 * Counters of an Ethernet port with RoCE, for "rdma statistic" and sysfs. Those
 * that soft-RoCE has, too, have the names that it gives them.
 */

#include "refault.h"

/* In the order of struct refault_port_counters. */
static const struct rdma_stat_desc refault_port_stats[] = {
	{ .name = "sent_pkts" },
	{ .name = "rcvd_pkts" },
	{ .name = "sent_bytes" },
	{ .name = "rcvd_bytes" },
	{ .name = "duplicate_request" },
	{ .name = "out_of_seq_request" },
	{ .name = "rcvd_rnr_err" },
	{ .name = "send_rnr_err" },
	{ .name = "rcvd_seq_err" },
	{ .name = "retry_exceeded_err" },
	{ .name = "retry_rnr_exceeded_err" },
	{ .name = "icrc_error" },
	{ .name = "dropped" },
	{ .name = "rx_overflow" },
	{ .name = "fault_dropped" },
};

static_assert(ARRAY_SIZE(refault_port_stats) * sizeof(__le64) ==
	      sizeof(struct refault_port_counters));

struct rdma_hw_stats *refault_alloc_hw_port_stats(struct ib_device *ibdev,
						  u32 port)
{
	return rdma_alloc_hw_stats_struct(refault_port_stats,
					  ARRAY_SIZE(refault_port_stats),
					  RDMA_HW_STATS_DEFAULT_LIFESPAN);
}

/* Returns how many counters are up to date. */
int refault_get_hw_stats(struct ib_device *ibdev, struct rdma_hw_stats *stats,
			 u32 port, int index)
{
	__le64 counters[ARRAY_SIZE(refault_port_stats)];
	unsigned int i;
	int ret;

	/* The device as a whole has none. */
	if (!port)
		return -EINVAL;
	ret = refault_cmd(to_rdev(ibdev), REFAULT_CMD_QUERY_COUNTERS, NULL, 0,
			  counters, sizeof(counters));
	if (ret)
		return ret;
	for (i = 0; i < ARRAY_SIZE(counters); i++)
		stats->value[i] = le64_to_cpu(counters[i]);
	return ARRAY_SIZE(counters);
}
