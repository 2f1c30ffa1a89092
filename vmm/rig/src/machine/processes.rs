//! The guest's processes, by PASID.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use refault_bus::Pasid;
use refault_bus::pri::ResponseCode;
use refault_bus::sync::lock;
use refault_model::Process;
use refault_model::vtd::QueuedRequest;

/// The processes that handle page requests.
#[derive(Default)]
pub struct Processes(Mutex<BTreeMap<Pasid, Arc<Process>>>);

impl Processes {
    /// Binds `pasid` to `process`, which from now on handles its page requests.
    pub fn insert(&self, pasid: Pasid, process: Arc<Process>) {
        lock(&self.0).insert(pasid, process);
    }

    /// Unbinds `pasid`: from now on its page requests get [`ResponseCode::InvalidRequest`].
    pub fn remove(&self, pasid: Pasid) {
        lock(&self.0).remove(&pasid);
    }

    /// Lets the process of `request` handle the fault. Returns [`ResponseCode::InvalidRequest`] if there is none.
    pub fn fault(&self, request: &QueuedRequest) -> ResponseCode {
        let process = request.pasid.and_then(|pasid| lock(&self.0).get(&pasid).cloned());
        process.map_or(ResponseCode::InvalidRequest, |process| process.fault(request))
    }
}
