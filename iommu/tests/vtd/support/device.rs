//! A device that records what the unit sends it, and can run a hook while it receives it.

use std::sync::Mutex;

use refault_bus::Bdf;
use refault_bus::ats::{AtsEndpoint, InvalidationRequest};
use refault_bus::pri::PageGroupResponse;

type Hook = Box<dyn Fn() + Send + Sync>;

pub(crate) struct Device {
    requester: Bdf,
    invalidations: Mutex<Vec<InvalidationRequest>>,
    responses: Mutex<Vec<PageGroupResponse>>,
    hook: Mutex<Option<Hook>>,
}

impl Device {
    pub(crate) fn new(requester: Bdf) -> Self {
        let (invalidations, responses, hook) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { requester, invalidations, responses, hook }
    }

    /// Invalidation requests since the last call.
    pub(crate) fn invalidations(&self) -> Vec<InvalidationRequest> {
        std::mem::take(&mut *self.invalidations.lock().unwrap())
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
    fn requester(&self) -> Bdf {
        self.requester
    }

    fn invalidate(&self, request: InvalidationRequest) {
        self.run_hook();
        self.invalidations.lock().unwrap().push(request);
    }

    fn page_group_response(&self, response: PageGroupResponse) {
        self.run_hook();
        self.responses.lock().unwrap().push(response);
    }
}
