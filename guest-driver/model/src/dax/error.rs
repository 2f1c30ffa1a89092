//! Errors of file operations.

use std::fmt;

use thiserror::Error;

use crate::ModelError;

/// The error numbers of Linux that occur in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::upper_case_acronyms, reason = "the names of errno(3)")]
pub enum Errno {
    /// Operation not permitted: a lease or seal is required.
    EPERM,
    /// No such file.
    ENOENT,
    /// The limit of locked memory is exceeded.
    ENOMEM,
    /// The address is not mapped, or does not allow the access.
    EFAULT,
    /// The file or page is in use.
    EBUSY,
    /// Invalid argument.
    EINVAL,
    /// Text file busy: the blocks are pinned or sealed.
    ETXTBSY,
    /// No space left on the device.
    ENOSPC,
    /// Operation not supported.
    EOPNOTSUPP,
    /// The filesystem is not mounted.
    EIO,
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a file operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FsError {
    /// The filesystem or a policy refused the operation.
    #[error("{errno}: {reason}")]
    Refused {
        /// The error number that a program gets.
        errno: Errno,
        /// The reason, for error messages and reports.
        reason: &'static str,
    },
    /// The operation waits for something that never happens.
    #[error("waits forever for {0}")]
    Forever(&'static str),
    /// The model itself failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl FsError {
    /// An [`FsError::Refused`].
    pub const fn refused(errno: Errno, reason: &'static str) -> Self {
        Self::Refused { errno, reason }
    }

    /// The error number, if the operation was refused.
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}
