// SPDX-License-Identifier: GPL-2.0
/*
 * Driver-specific attributes for "rdma resource show" and "rdma statistic".
 */

#include <net/netlink.h>
#include <rdma/rdma_netlink.h>
#include <rdma/restrack.h>

#include "odp.h"

static int refault_put_table(struct sk_buff *msg, const struct refault_mr *mr,
			     u32 pages, u32 tables)
{
	if (rdma_nl_put_driver_u32(msg, "pages", pages) ||
	    rdma_nl_put_driver_u32(msg, "table_levels", mr->pbl.table.levels) ||
	    rdma_nl_put_driver_u32(msg, "table_pages", tables))
		return -EMSGSIZE;
	return 0;
}

/* Pages that are present in the region's table. */
static u32 refault_odp_pages(struct refault_odp *odp)
{
	struct refault_odp_part *child;
	unsigned long index;
	u32 pages = 0;

	if (!odp->anchor)
		return READ_ONCE(odp->whole.umem->npages);
	xa_lock(&odp->children);
	xa_for_each(&odp->children, index, child)
		pages += READ_ONCE(child->umem->npages);
	xa_unlock(&odp->children);
	return pages;
}

static int refault_put_mode(struct sk_buff *msg, const struct refault_mr *mr)
{
	static const char *const modes[] = {
		[REFAULT_MR_PINNED] = "pinned",
		[REFAULT_MR_PASID] = "pasid",
		[REFAULT_MR_ODP] = "odp",
		[REFAULT_MR_FAST] = "fast",
	};

	if (rdma_nl_put_driver_string(msg, "mode", modes[mr->mode]))
		return -EMSGSIZE;
	if (mr->odp)
		return refault_put_table(msg, mr, refault_odp_pages(mr->odp),
					 atomic_read(&mr->odp->num_tables));
	if (mr->umem)
		return refault_put_table(msg, mr,
					 le32_to_cpu(mr->pbl.table.pages),
					 mr->pbl.num_tables);
	return 0;
}

int refault_fill_res_mr_entry(struct sk_buff *msg, struct ib_mr *ibmr)
{
	const struct refault_mr *mr = to_rmr(ibmr);
	struct nlattr *table;

	table = nla_nest_start(msg, RDMA_NLDEV_ATTR_DRIVER);
	if (!table)
		return -EMSGSIZE;
	if (refault_put_mode(msg, mr)) {
		nla_nest_cancel(msg, table);
		return -EMSGSIZE;
	}
	nla_nest_end(msg, table);
	return 0;
}

/*
 * "rdma statistic show mr", with the counter names of mlx5: pages that the NIC
 * gained or lost, and the events or commands for them. Regions in PASID mode
 * have no counters: the IOMMU driver serves their faults and does not count per
 * region.
 */
int refault_fill_stat_mr_entry(struct sk_buff *msg, struct ib_mr *ibmr)
{
	struct refault_odp *odp = to_rmr(ibmr)->odp;
	struct nlattr *table;
	unsigned int i;

	if (!odp)
		return 0;
	const struct {
		const char *name;
		const atomic64_t *value;
	} counters[] = {
		{ "page_faults", &odp->stats.faults },
		{ "page_faults_handled", &odp->stats.faults_handled },
		{ "page_invalidations", &odp->stats.invalidations },
		{ "page_invalidations_handled",
		  &odp->stats.invalidations_handled },
		{ "page_prefetch", &odp->stats.prefetch },
	};

	table = nla_nest_start(msg, RDMA_NLDEV_ATTR_STAT_HWCOUNTERS);
	if (!table)
		return -EMSGSIZE;
	for (i = 0; i < ARRAY_SIZE(counters); i++) {
		if (rdma_nl_stat_hwcounter_entry(msg, counters[i].name,
						 atomic64_read(counters[i].value))) {
			nla_nest_cancel(msg, table);
			return -EMSGSIZE;
		}
	}
	nla_nest_end(msg, table);
	return 0;
}
