//! What the unit says it can do: CAP and ECAP, built here and nowhere else. `docs/iommu-features.md` says
//! what each bit promises and which test holds it.

use crate::spec::registers::{Cap, Ecap, offset};

/// VER: major 6, minor 0. From major 2 on, IOTLB invalidations always drain.
pub const VERSION: u32 = 0x60;

/// Number of fault recording registers.
pub const FAULT_RECORDS: usize = 8;

/// CAP. Clear: AFL, RWBF (updates of tables are seen at once), PLMR/PHMR, CM (nothing absent is cached),
/// SAGAW/SSLPS (no second stage), ZLR, PI, FS5LP, ECMDS, ESIRTPS.
pub const CAP: Cap = Cap::new()
    // 65536 domains: all 16 bits of a domain id are compared.
    .with_nd(6)
    // 48 bits: what 4-level first-stage tables cover.
    .with_mgaw(47)
    .with_fro((offset::FRCD / 16) as u16)
    .with_nfr(FAULT_RECORDS as u8 - 1)
    // Page-selective invalidation with any mask.
    .with_psi(true)
    .with_mamv(0x3f)
    // An invalidation waits for translated reads and writes.
    .with_dwd(true)
    .with_drd(true)
    // SVA is refused by Linux if the processor has 1 GiB pages and this is clear.
    .with_fs1gp(true)
    // Setting the root table pointer empties all caches.
    .with_esrtps(true);

/// ECAP. Clear: IR/EIM/MHMV (no interrupt remapping), SC, NEST, ERS, SRS, EAFS, DIT, VCS, SSADS, SSTS, RPS
/// (requests without PASID use PASID 0), PMS, ADMS, RPRIVS.
pub const ECAP: Ecap = Ecap::new()
    // Tables are read from the same memory the vCPUs write.
    .with_c(true)
    .with_qi(true)
    .with_dt(true)
    .with_pt(true)
    .with_iro((offset::IVA / 16) as u16)
    .with_prs(true)
    .with_nwfs(true)
    // 20-bit PASIDs.
    .with_pss(19)
    .with_pasid(true)
    // Linux wants page request drain before it enables PRI.
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
        assert_eq!(CAP.into_bits(), 0x81ff_0780_222f_0006);
        assert_eq!(ECAP.into_bits(), 0x0001_8d9a_2000_0f47);
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
