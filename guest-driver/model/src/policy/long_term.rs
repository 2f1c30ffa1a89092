//! Pins that last as long as the region does, of which the filesystem knows nothing.

use std::sync::Arc;

use crate::dax::{Errno, FsError, Rule};
use crate::memory::FRAME;
use crate::policy::{Pinned, Policy, Registration, RegistrationRequest};

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

    fn register(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        Ok(Pinned::create(request)?)
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
        let refused = FsError::refused(Errno::EFAULT, "a page cannot be faulted in");
        for offset in (0..request.bytes()).step_by(FRAME as usize) {
            let at = refault_bus::Iova(request.start.0 + offset);
            request.process.fault_at(at, request.write).map_err(|_| refused.clone())?;
        }
        Ok(())
    }

    fn register(&self, request: &RegistrationRequest) -> Result<Arc<dyn Registration>, FsError> {
        Ok(Pinned::create(request)?)
    }
}
