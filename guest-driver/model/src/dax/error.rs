//! What a file operation says when it fails.

use std::fmt;

use thiserror::Error;

use crate::ModelError;

/// Linux' error numbers, as far as they occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::upper_case_acronyms)]
pub enum Errno {
    /// Not permitted.
    EPERM,
    /// No such file.
    ENOENT,
    /// No memory that may be locked.
    ENOMEM,
    /// Bad address.
    EFAULT,
    /// In use.
    EBUSY,
    /// Invalid argument.
    EINVAL,
    /// In use as text: refused while somebody relies on the blocks.
    ETXTBSY,
    /// No space.
    ENOSPC,
    /// Not supported.
    EOPNOTSUPP,
    /// The filesystem is not mounted any more.
    EIO,
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An operation that did not take place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FsError {
    /// It was refused.
    #[error("{errno}: {reason}")]
    Refused {
        /// The number that a program sees.
        errno: Errno,
        /// Why, for people.
        reason: &'static str,
    },
    /// It waits for something that never comes.
    #[error("waits for ever for {0}")]
    Forever(&'static str),
    /// The model itself failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl FsError {
    /// A refusal.
    pub const fn refused(errno: Errno, reason: &'static str) -> Self {
        Self::Refused { errno, reason }
    }

    /// The number, if there is one.
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}
