//! From a requester id to its context entry (§3.4.3).

use refault_bus::Bdf;
use refault_bus::dma::DmaMemory;

use super::{WalkFault, entry_at};
use crate::fault::FaultReason;
use crate::spec::beyond_host_width;
use crate::spec::context::{CONTEXT_ENTRY_BYTES, ContextEntry, ROOT_ENTRY_BYTES, RootHalf};
use crate::spec::registers::{MODE_LEGACY, MODE_SCALABLE, RootTableAddress};

/// Reads the context entry of `requester`, present and well-formed. `in_legacy_mode` is the fault of the request if the
/// root table is one of legacy mode.
///
/// # Errors
///
/// The condition of table 30 that ends the walk: RTA, SRT or SCT.
pub(crate) fn walk(
    memory: &dyn DmaMemory,
    root: RootTableAddress,
    requester: Bdf,
    in_legacy_mode: FaultReason,
) -> Result<ContextEntry, WalkFault> {
    // 1. The root table must be one of scalable mode.
    match root.mode() {
        MODE_SCALABLE => {}
        MODE_LEGACY => return Err(WalkFault::new(in_legacy_mode, false)),
        _ => return Err(WalkFault::new(FaultReason::RootMode, false)),
    }
    // 2. The root entry of the bus: a scalable-mode one has two halves, for device numbers below 16 and from 16 (§9.2).
    if beyond_host_width(root.frame()) {
        return Err(WalkFault::new(FaultReason::RootAccess, false));
    }
    let upper = u64::from(requester.devfn() >> 7);
    let half = entry_at(root.frame(), u64::from(requester.bus()) * 2 + upper, ROOT_ENTRY_BYTES / 2);
    let half = memory.load_u64(half).map_err(|_| WalkFault::new(FaultReason::RootAccess, false))?;
    let half = RootHalf::from_bits(half);
    if !half.present() {
        return Err(WalkFault::new(FaultReason::RootNotPresent, false));
    }
    if half.is_malformed() {
        return Err(WalkFault::new(FaultReason::RootReserved, false));
    }
    // 3. The context entry. P is read first and written last by software, so the other quadwords are valid if it is set.
    // FPD is valid with and without P (§9.4).
    let at = entry_at(half.frame(), u64::from(requester.devfn() & 0x7f), CONTEXT_ENTRY_BYTES);
    let quad = |index: u64| {
        memory
            .load_u64(refault_bus::Gpa(at.0 + index * 8))
            .map_err(|_| WalkFault::new(FaultReason::ContextAccess, false))
    };
    let entry = ContextEntry::from_bits(quad(0)?);
    if !entry.present() {
        return Err(WalkFault::new(FaultReason::ContextNotPresent, entry.fpd()));
    }
    // All other bits are reserved, RID_PASID and RID_PRIV too, because ECAP.RPS and ECAP.RPRIVS are clear.
    if entry.is_malformed() || quad(1)? | quad(2)? | quad(3)? != 0 {
        return Err(WalkFault::new(FaultReason::ContextReserved, entry.fpd()));
    }
    // SCT.4: page requests need translation requests, because the device translates again after the response.
    if entry.pre() && !entry.dte() {
        return Err(WalkFault::new(FaultReason::ContextInvalid, entry.fpd()));
    }
    Ok(entry)
}
