// SPDX-License-Identifier: GPL-2.0
/*
 * What "rdma resource show" tells beyond what the RDMA core knows.
 */

#include <net/netlink.h>
#include <rdma/rdma_netlink.h>
#include <rdma/restrack.h>

#include "refault.h"

int refault_fill_res_mr_entry(struct sk_buff *msg, struct ib_mr *ibmr)
{
	const struct refault_mr *mr = to_rmr(ibmr);
	struct nlattr *table;

	table = nla_nest_start(msg, RDMA_NLDEV_ATTR_DRIVER);
	if (!table)
		return -EMSGSIZE;
	if (rdma_nl_put_driver_string(msg, "mode",
				      mr->umem ? "pinned" : "pasid"))
		goto err_cancel;
	if (mr->umem &&
	    (rdma_nl_put_driver_u32(msg, "pages", le32_to_cpu(mr->pbl.table.pages)) ||
	     rdma_nl_put_driver_u32(msg, "table_levels", mr->pbl.table.levels)))
		goto err_cancel;
	nla_nest_end(msg, table);
	return 0;

err_cancel:
	nla_nest_cancel(msg, table);
	return -EMSGSIZE;
}
