//! From a requester id to its context entry (§3.4.3).

use refault_bus::Bdf;
use refault_bus::dma::DmaMemory;

use super::{WalkFault, entry_at};
use crate::fault::FaultReason;
use crate::spec::beyond_host_width;
use crate::spec::context::{CONTEXT_ENTRY_BYTES, ContextEntry, ROOT_ENTRY_BYTES, RootHalf};
use crate::spec::registers::{MODE_SCALABLE, RootTableAddress};

/// Reads the context entry of `requester`. Only a present and well-formed one is returned.
pub(crate) fn walk(
    memory: &dyn DmaMemory,
    root: RootTableAddress,
    requester: Bdf,
) -> Result<ContextEntry, WalkFault> {
    // 1. The root table must be a scalable-mode one.
    if root.mode() != MODE_SCALABLE {
        return Err(WalkFault::new(FaultReason::RootMode, false));
    }
    // 2. The half of the bus' root entry that covers the device number.
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
    // 3. The context entry. FPD counts whether it is present or not.
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
    // RID_PASID and RID_PRIV are reserved like the rest of the entry, for ECAP.RPS and RPRIVS are clear.
    if entry.is_malformed() || quad(1)? | quad(2)? | quad(3)? != 0 {
        return Err(WalkFault::new(FaultReason::ContextReserved, entry.fpd()));
    }
    if entry.pre() && !entry.dte() {
        return Err(WalkFault::new(FaultReason::ContextInvalid, entry.fpd()));
    }
    Ok(entry)
}
