//! Table walks: functions of guest memory, a root and a request. They take no lock, send no message and keep no state.
//! The first-stage walk alone writes: accessed and dirty bits.
//!
//! Each quadword is read once, by an acquire load, and decoded from that copy: a guest that changes an entry during a
//! walk gets the walk of the old value or of the new one, never a check of one and a use of the other.

pub(crate) mod context;
pub(crate) mod first_stage;
pub(crate) mod pasid;

use refault_bus::Gpa;

use crate::fault::FaultReason;

/// A fault found by a walk, and whether the entries on the way disabled its recording.
///
/// FPD (fault processing disable) is a bit of context, directory and PASID entries. The walk collects it from each
/// entry it has read, so a fault further down, or in the entry itself, knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WalkFault {
    pub(crate) reason: FaultReason,
    /// One of the entries read so far has FPD set: qualified faults are not recorded.
    pub(crate) fpd: bool,
}

impl WalkFault {
    pub(crate) const fn new(reason: FaultReason, fpd: bool) -> Self {
        Self { reason, fpd }
    }

    /// Whether the fault is recorded: FPD does not hold back faults that are not qualified (§7.1.3, table 30).
    pub(crate) const fn is_recorded(self) -> bool {
        !(self.fpd && self.reason.is_qualified())
    }
}

/// Address of entry `index` in the table at `frame`. Frames are checked to have 40 bits, so this cannot overflow.
const fn entry_at(frame: u64, index: u64, entry_bytes: u64) -> Gpa {
    Gpa((frame << 12) + index * entry_bytes)
}
