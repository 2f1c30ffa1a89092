//! Long-term pins, which the filesystem does not know about.

use std::sync::Arc;

use crate::dax::{Errno, FsError, Rule};
use crate::policy::pinned::fault_in;
use crate::policy::{Policy, Registration, RegistrationRequest};

/// Pins without any protocol: the pages are looked up once and handed to the device, and the filesystem ignores the
/// pins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unprotected;

/// Linux today: FOLL_LONGTERM on a filesystem-DAX mapping fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct Banned;

/// As [`Unprotected`], but each page is first faulted in for writing (`page_mkwrite`). That works once: after the page
/// was cleaned, the device writes it without the filesystem knowing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prefault;

impl Rule for Unprotected {}

impl Policy for Unprotected {
    fn name(&self) -> &'static str {
        "pin"
    }
}

impl Rule for Banned {}

impl Policy for Banned {
    fn name(&self) -> &'static str {
        "pin-banned"
    }

    fn register(&self, _request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        Err(FsError::refused(Errno::EOPNOTSUPP, "pages of a DAX file cannot be pinned for long"))
    }
}

impl Rule for Prefault {}

impl Policy for Prefault {
    fn name(&self) -> &'static str {
        "prefault"
    }

    fn prepare(&self, request: &RegistrationRequest) -> Result<(), FsError> {
        fault_in(&request.process, (request.start, request.bytes()), request.write, |_| Ok(()))
    }
}
