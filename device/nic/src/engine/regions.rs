//! Requests that make regions valid or invalid: their own, or a message's that names a key of its receiver.
//!
//! A region is invalid when no access through it is in flight, so a change passes through every guard, and none is held.

use std::ops::ControlFlow;

use refault_abi::codes::{WC_LOC_QP_OP_ERR, WC_SUCCESS};

use super::Engine;
use super::outcome::{Leave, RegionChange};
use super::turn::Turn;
use crate::qp::requester::Message;
use crate::verbs::Operation;

impl Engine {
    /// Changes a region for a request of protection domain `pd`. No guard is held.
    pub(super) fn change_region(&self, change: RegionChange, pd: u32) -> bool {
        match change {
            RegionChange::Register(registration) => self.memory.register(&registration, pd),
            RegionChange::Invalidate { key } => self.memory.invalidate_fast(key, pd),
            RegionChange::Remote { key, pd } => self.memory.invalidate_fast(key, pd),
        }
    }
}

impl Turn<'_, '_> {
    /// Leaves the guard if the active request changes a region.
    pub(super) fn change_own_region(&mut self) -> ControlFlow<Leave> {
        let Some(Message { request, .. }) = self.requester.active.get() else {
            return ControlFlow::Continue(());
        };
        let change = match request.operation {
            Operation::Invalidate { key } => Some(RegionChange::Invalidate { key }),
            _ => request.registration().map(RegionChange::Register),
        };
        change.map_or(ControlFlow::Continue(()), |change| ControlFlow::Break(Leave::ChangeRegion(change)))
    }

    /// A region was changed, or could not be.
    pub(super) fn note_region_change(&mut self, change: RegionChange, done: bool) {
        self.budget.spend(0);
        match change {
            RegionChange::Register(_) | RegionChange::Invalidate { .. } => {
                self.complete_request(if done { WC_SUCCESS } else { WC_LOC_QP_OP_ERR }, None);
            }
            // The message is looked at again. If another one was first to invalidate the key, it is refused.
            RegionChange::Remote { key, .. } => {
                let invalidated = done.then_some(key);
                if let Some(connection) = &mut self.requester.connection {
                    connection.invalidated = invalidated;
                } else if let Some(message) = self.requester.active.get_mut() {
                    message.invalidated = invalidated;
                }
            }
        }
    }
}
