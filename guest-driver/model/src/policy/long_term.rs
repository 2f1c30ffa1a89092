//! Pins that last as long as the region does, of which the filesystem knows nothing.

use std::sync::Arc;

use crate::dax::{Errno, FsError, Rule};
use crate::policy::pinned::fault_in;
use crate::policy::{Policy, Registration, RegistrationRequest};

/// The original sin: the pages are looked up once and handed to the device; the filesystem goes on as if nobody used
/// them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unprotected;

/// What Linux does today: FOLL_LONGTERM of a filesystem-DAX mapping fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct Banned;

/// As [`Unprotected`], but registration first lets the filesystem know of every page that it will be written
/// (`page_mkwrite`), once. What is cleaned afterwards is written behind the filesystem's back all the same.
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
