//! The devices below the unit.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, RwLock, Weak};

use refault_bus::ats::AtsEndpoint;
use refault_bus::{Bdf, sync};

/// Attached devices, by requester ID. No call is made with the lock held. Weak references, because a device owns a
/// reference to the unit; a device that is being made, or is gone, cannot be reached through its reference and has nothing
/// cached.
#[derive(Default)]
pub(crate) struct Endpoints(RwLock<BTreeMap<Bdf, Weak<dyn AtsEndpoint>>>);

impl Endpoints {
    /// Adds a device, in place of one with the same requester ID.
    pub(crate) fn attach(&self, requester: Bdf, endpoint: Weak<dyn AtsEndpoint>) {
        sync::write(&self.0).insert(requester, endpoint);
    }

    /// The device with this requester ID, if it is attached and alive.
    pub(crate) fn find(&self, requester: Bdf) -> Option<Arc<dyn AtsEndpoint>> {
        sync::read(&self.0).get(&requester)?.upgrade()
    }

    /// The devices that `matches` selects.
    pub(crate) fn matching(&self, matches: impl Fn(Bdf) -> bool) -> Vec<Arc<dyn AtsEndpoint>> {
        let all = sync::read(&self.0);
        all.iter()
            .filter(|&(&requester, _)| matches(requester))
            .filter_map(|(_, endpoint)| endpoint.upgrade())
            .collect()
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").finish_non_exhaustive()
    }
}
