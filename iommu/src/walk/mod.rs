//! Table walks: pure functions of guest memory, a root and a request. They take no lock, send nothing and
//! remember nothing.

pub(crate) mod context;
pub(crate) mod first_stage;
pub(crate) mod pasid;

use refault_bus::Gpa;

use crate::fault::FaultReason;

/// What ended a walk of the root, context and PASID tables before its goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// Why.
    pub(crate) reason: FaultReason,
    /// An FPD bit was met on the way: qualified faults are not recorded.
    pub(crate) fpd: bool,
}

impl Stop {
    /// A stop on a path where recording is `fpd`-disabled or not.
    pub(crate) const fn new(reason: FaultReason, fpd: bool) -> Self {
        Self { reason, fpd }
    }

    /// Whether the fault is to be recorded.
    pub(crate) const fn is_recorded(self) -> bool {
        !(self.fpd && self.reason.is_qualified())
    }
}

/// Address of entry `index` in the table at `frame`. Frames have 40 bits, so this cannot overflow.
const fn entry_at(frame: u64, index: u64, entry_bytes: u64) -> Gpa {
    Gpa((frame << 12) + index * entry_bytes)
}
