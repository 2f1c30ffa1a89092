//! A device that records what the unit sends it, and can run a hook while it receives it.

use std::sync::{Arc, Mutex};

use refault_bus::Bdf;
use refault_bus::ats::{AtsEndpoint, InvalidationRequest};
use refault_bus::pri::PageGroupResponse;
use refault_iommu::Iommu;

type Hook = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
pub(crate) struct Device {
    invalidations: Mutex<Vec<InvalidationRequest>>,
    responses: Mutex<Vec<PageGroupResponse>>,
    drains: Mutex<usize>,
    hook: Mutex<Option<Hook>>,
}

impl Device {
    /// A device of the unit with this requester ID.
    pub(crate) fn attach(iommu: &Iommu, requester: Bdf) -> Arc<Self> {
        let device = Arc::<Self>::default();
        let endpoint: Arc<dyn AtsEndpoint> = device.clone();
        iommu.attach(requester, Arc::downgrade(&endpoint));
        device
    }

    /// Invalidation requests since the last call.
    pub(crate) fn invalidations(&self) -> Vec<InvalidationRequest> {
        std::mem::take(&mut *self.invalidations.lock().unwrap())
    }

    /// Drains since the last call.
    pub(crate) fn drains(&self) -> usize {
        std::mem::take(&mut *self.drains.lock().unwrap())
    }

    /// Page group responses since the last call.
    pub(crate) fn responses(&self) -> Vec<PageGroupResponse> {
        std::mem::take(&mut *self.responses.lock().unwrap())
    }

    /// Runs `hook` inside every later call of the unit.
    pub(crate) fn on_call(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    fn run_hook(&self) {
        if let Some(hook) = &*self.hook.lock().unwrap() {
            hook();
        }
    }
}

impl AtsEndpoint for Device {
    fn invalidate(&self, request: InvalidationRequest) {
        self.run_hook();
        self.invalidations.lock().unwrap().push(request);
    }

    fn drain(&self) {
        self.run_hook();
        *self.drains.lock().unwrap() += 1;
    }

    fn page_group_response(&self, response: PageGroupResponse) {
        self.run_hook();
        self.responses.lock().unwrap().push(response);
    }
}
