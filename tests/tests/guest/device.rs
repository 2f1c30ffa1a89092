//! IOMMU and NIC as a stock kernel and stock tools see them.

use crate::support::script;

#[test]
fn a_stock_kernel_brings_iommu_and_nic_up() {
    let (said, _) = script(2, &[], "ibv_devinfo -v; lspci -vvv -d 1fef:1; dmesg");
    assert_eq!(said.status, 0, "{said:#?}");
    for line in [
        "DMAR: dmar0: Using Queued invalidation",
        "DMAR: Intel(R) Virtualization Technology for Directed I/O",
    ] {
        assert!(said.stdout.contains(line), "missing in dmesg: {line}\n{}", said.stdout);
    }
    for line in [
        "Root Complex Integrated Endpoint",
        "MSI-X: Enable+",
        "ATSCtl:\tEnable+",
        "PRICtl: Enable+",
        "PASIDCtl: Enable+",
        "Kernel driver in use: refault_rdma",
    ] {
        assert!(said.stdout.contains(line), "missing in lspci: {line}\n{}", said.stdout);
    }
    for line in
        ["hca_id:\trefault_0", "PORT_ACTIVE", "general_odp_caps", "ODP_SUPPORT", "ODP_SUPPORT_IMPLICIT"]
    {
        assert!(said.stdout.contains(line), "missing in ibv_devinfo: {line}\n{}", said.stdout);
    }
}
