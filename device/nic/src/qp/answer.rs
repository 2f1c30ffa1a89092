//! The answer to a page request, as it is left for the queue pair that waits.

use crate::cause::Cause;

/// What became of a page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageAnswer {
    /// Look again.
    LookAgain,
    /// It will not be there.
    Failed(Cause),
}

impl PageAnswer {
    pub(super) const fn bits(self) -> u64 {
        match self {
            Self::LookAgain => 0,
            Self::Failed(Cause::PageRefused) => 1,
            Self::Failed(Cause::PageFailure) => 2,
            Self::Failed(Cause::PageTimeout) => 3,
            Self::Failed(Cause::NotPersistent) => 5,
            Self::Failed(_) => 4,
        }
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        match bits & 7 {
            0 => Self::LookAgain,
            1 => Self::Failed(Cause::PageRefused),
            2 => Self::Failed(Cause::PageFailure),
            3 => Self::Failed(Cause::PageTimeout),
            5 => Self::Failed(Cause::NotPersistent),
            _ => Self::Failed(Cause::Blocked),
        }
    }
}
