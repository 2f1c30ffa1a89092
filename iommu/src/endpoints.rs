//! The devices below the unit.

use std::fmt;
use std::sync::{Arc, RwLock, Weak};

use refault_bus::Bdf;
use refault_bus::ats::AtsEndpoint;
use refault_bus::sync;

/// Attached devices, by requester ID. No call that can wait is made with the lock held; [`AtsEndpoint::requester`] is
/// not one. Weak references, because a device owns a reference to the unit.
#[derive(Default)]
pub(crate) struct Endpoints(RwLock<Vec<Weak<dyn AtsEndpoint>>>);

impl Endpoints {
    /// Adds a device, in place of one with the same requester ID.
    pub(crate) fn attach(&self, endpoint: Weak<dyn AtsEndpoint>) {
        let requester = endpoint.upgrade().map(|endpoint| endpoint.requester());
        let mut all = sync::write(&self.0);
        all.retain(|old| old.upgrade().is_some_and(|old| Some(old.requester()) != requester));
        all.push(endpoint);
    }

    /// The device with this requester ID, if it is attached and alive.
    pub(crate) fn find(&self, requester: Bdf) -> Option<Arc<dyn AtsEndpoint>> {
        let all = sync::read(&self.0);
        all.iter().rev().filter_map(Weak::upgrade).find(|endpoint| endpoint.requester() == requester)
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").finish_non_exhaustive()
    }
}
