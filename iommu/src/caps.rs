//! The unit's capabilities: CAP and ECAP are built here and nowhere else. `docs/iommu-features.md` says what each bit
//! promises and which test verifies it.

use refault_bus::bits::{low_u8, low_u16};

use crate::spec::HOST_ADDRESS_WIDTH;
use crate::spec::registers::{Cap, Ecap, offset};

/// VER: major version 6, minor 0. From major version 2, IOTLB invalidations always drain.
pub const VERSION: u32 = 0x60;

/// Number of fault recording registers.
pub const FAULT_RECORDS: usize = 8;

/// CAP, §11.4.2. Clear: AFL, RWBF (there is no write buffer to flush), PLMR/PHMR, CM (entries that are not present are
/// never cached), SAGAW/SSLPS (no second stage), ZLR, PI, FS5LP, ECMDS, ESIRTPS.
pub const CAP: Cap = Cap::new()
    // 65536 domains: all 16 bits of a domain id are compared.
    .with_nd(6)
    // What passes through is limited by the host address width; first-stage tables of 4 levels, by their own 48 bits.
    .with_mgaw(HOST_ADDRESS_WIDTH - 1)
    .with_fro(low_u16(offset::FRCD / 16))
    .with_nfr(low_u8(FAULT_RECORDS as u64) - 1)
    // Page-selective invalidation with any mask.
    .with_psi(true)
    .with_mamv(0x3f)
    // An invalidation waits for translated reads and writes.
    .with_dwd(true)
    .with_drd(true)
    // Linux refuses SVA if the processor has 1 GiB pages and this is clear.
    .with_fs1gp(true)
    // Setting the root table pointer flushes all caches.
    .with_esrtps(true);

/// ECAP, §11.4.3. Clear: IR/EIM/MHMV (no interrupt remapping), NEST, ERS, SRS, EAFS, DIT, VCS, SSADS, SSTS, RPS
/// (requests without PASID use PASID 0), PMS, ADMS, RPRIVS.
pub const ECAP: Ecap = Ecap::new()
    // Walks read the memory that the vCPUs write; there is no cache in between.
    .with_c(true)
    .with_qi(true)
    .with_dt(true)
    .with_pt(true)
    // Every access is snooped, so PGSNP of a PASID entry, which asks for that, can be set.
    .with_sc(true)
    .with_iro(low_u16(offset::IVA / 16))
    .with_prs(true)
    .with_nwfs(true)
    // 20-bit PASIDs.
    .with_pss(19)
    .with_pasid(true)
    // Linux enables PRI only with page request drain.
    .with_pds(true)
    .with_smts(true)
    .with_fsts(true)
    // Linux offers SVA only to units whose scalable-mode walks are coherent.
    .with_smpwc(true);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cap_and_ecap_are_exactly_these() {
        assert_eq!(CAP.into_bits(), 0x81ff_0780_2233_0006);
        assert_eq!(ECAP.into_bits(), 0x0001_8d9a_2000_0fc7);
    }

    #[test]
    fn linux_finds_all_that_sva_needs() {
        // intel_svm_check, pri_supported, alloc_iommu with neither SAGAW nor second stage.
        assert!(ECAP.pasid() && ECAP.smts() && ECAP.smpwc() && ECAP.fsts() && CAP.fs1gp());
        assert!(ECAP.prs() && ECAP.pds() && ECAP.dt() && ECAP.qi());
        assert!(CAP.sagaw() == 0 && !ECAP.ssts() && !CAP.fs5lp());
    }

    #[test]
    fn register_blocks_lie_inside_the_page() {
        let faults = u64::from(CAP.fro()) * 16 + (u64::from(CAP.nfr()) + 1) * 16;
        assert!(faults <= crate::REGISTER_WINDOW && u64::from(ECAP.iro()) * 16 + 16 <= offset::FRCD);
    }
}
