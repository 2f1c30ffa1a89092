//! The guest's processes by the PASID that the NIC knows them by.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use refault_bus::Pasid;
use refault_bus::pri::ResponseCode;
use refault_model::Process;
use refault_model::vtd::QueuedRequest;

/// Where page requests are answered.
#[derive(Default)]
pub struct Processes(Mutex<BTreeMap<Pasid, Arc<Process>>>);

impl Processes {
    /// From now on `process` answers the page requests of `pasid`.
    pub fn insert(&self, pasid: Pasid, process: Arc<Process>) {
        self.lock().insert(pasid, process);
    }

    /// From now on page requests of `pasid` are invalid.
    pub fn remove(&self, pasid: Pasid) {
        self.lock().remove(&pasid);
    }

    /// Lets the process of `request` handle the fault. A PASID without a process is an invalid request.
    pub fn fault(&self, request: &QueuedRequest) -> ResponseCode {
        let process = request.pasid.and_then(|pasid| self.lock().get(&pasid).cloned());
        process.map_or(ResponseCode::InvalidRequest, |process| process.fault(request))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Pasid, Arc<Process>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
