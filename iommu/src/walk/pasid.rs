//! From a context entry and a PASID to its PASID entry (§3.4.3).

use refault_bus::dma::DmaMemory;
use refault_bus::{Gpa, Pasid};

use super::{WalkFault, entry_at};
use crate::fault::FaultReason;
use crate::spec::context::ContextEntry;
use crate::spec::pasid_entry::{
    PASID_ENTRY_BYTES, PASIDS_PER_TABLE, PGTT_FIRST_STAGE, PGTT_PASS_THROUGH, PasidDirectoryEntry,
    PasidEntryControl, PasidEntryDomain, PasidEntryFirstStage,
};

/// A PASID entry, present and well-formed, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PasidEntry {
    /// Domain ID: with the PASID, the tag of translations in the IOTLB.
    pub(crate) did: u16,
    /// PGTT and what belongs to it: how addresses are translated.
    pub(crate) translation: TranslationType,
    /// FPD of this entry or of one on the way to it: qualified faults are not recorded.
    pub(crate) fpd: bool,
}

/// Supported translation types (PGTT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TranslationType {
    /// By the 4-level tables whose top one is at this address.
    FirstStage(Gpa),
    /// Not translated: addresses are physical ones.
    PassThrough,
}

/// Reads the PASID entry of `pasid`.
///
/// # Errors
///
/// The condition of table 30 that ends the walk: SCT.7, SPD or SPT.
pub(crate) fn walk(
    memory: &dyn DmaMemory,
    context: ContextEntry,
    pasid: Pasid,
) -> Result<PasidEntry, WalkFault> {
    let fpd = context.fpd();
    // 1. The directory entry. PASID 0, that of requests without PASID, is in every directory.
    if pasid.get() >= context.pasid_count() {
        return Err(WalkFault::new(FaultReason::PasidTooLarge, fpd));
    }
    let at = entry_at(context.frame(), u64::from(pasid.get() / PASIDS_PER_TABLE), 8);
    let directory = memory.load_u64(at).map_err(|_| WalkFault::new(FaultReason::DirectoryAccess, fpd))?;
    let directory = PasidDirectoryEntry::from_bits(directory);
    let fpd = fpd || directory.fpd();
    if !directory.present() {
        return Err(WalkFault::new(FaultReason::DirectoryNotPresent, fpd));
    }
    if directory.is_malformed() {
        return Err(WalkFault::new(FaultReason::DirectoryReserved, fpd));
    }
    // 2. The PASID entry: eight quadwords. The one with P is read first and written last by software, so the others are
    // valid if it is set.
    let at = entry_at(directory.frame(), u64::from(pasid.get() % PASIDS_PER_TABLE), PASID_ENTRY_BYTES);
    let mut quads = [0; 8];
    for (quad, offset) in quads.iter_mut().zip((0u64..).step_by(8)) {
        *quad =
            memory.load_u64(Gpa(at.0 + offset)).map_err(|_| WalkFault::new(FaultReason::PasidAccess, fpd))?;
    }
    decode(quads, fpd)
}

/// Checks P before reserved bits, and those before PGTT: the order of the conditions SPT.2 to SPT.4.
fn decode(quads: [u64; 8], fpd: bool) -> Result<PasidEntry, WalkFault> {
    let [control, domain, first_stage, rest @ ..] = quads;
    let control = PasidEntryControl::from_bits(control);
    let domain = PasidEntryDomain::from_bits(domain);
    let first_stage = PasidEntryFirstStage::from_bits(first_stage);
    let fpd = fpd || control.fpd();
    if !control.present() {
        return Err(WalkFault::new(FaultReason::PasidNotPresent, fpd));
    }
    let malformed = control.is_malformed() || domain.is_malformed() || first_stage.is_malformed();
    if malformed || rest.iter().any(|&quad| quad != 0) {
        return Err(WalkFault::new(FaultReason::PasidReserved, fpd));
    }
    let translation = match control.pgtt() {
        PGTT_FIRST_STAGE if first_stage.fspm() == 0 => {
            TranslationType::FirstStage(Gpa(first_stage.frame() << 12))
        }
        PGTT_PASS_THROUGH => TranslationType::PassThrough,
        _ => return Err(WalkFault::new(FaultReason::PasidInvalid, fpd)),
    };
    Ok(PasidEntry { did: domain.did(), translation, fpd })
}
