//! Queues by number.

use std::sync::Mutex;

use refault_bus::sync::lock;

use crate::ids::slot_of;
use crate::slab::Slab;

/// A queue with a number; a default one has number zero, and is none.
pub(super) trait Numbered: Default {
    fn number(&self) -> u32;
}

/// Queues, each with a lock, in the slots of their numbers.
pub(super) struct Queues<T>(Slab<Mutex<T>>);

impl<T: Numbered> Queues<T> {
    pub(super) fn new(limit: u32) -> Self {
        Self(Slab::new(limit))
    }

    /// Puts a queue into its slot; `false` beyond the limit.
    pub(super) fn insert(&self, queue: T) -> bool {
        let slot = self.0.grow_to(slot_of(queue.number()));
        slot.map(|slot| *lock(slot) = queue).is_some()
    }

    /// Empties the slot of a queue.
    pub(super) fn remove(&self, number: u32) {
        if let Some(slot) = self.0.find(slot_of(number)) {
            *lock(slot) = T::default();
        }
    }

    /// Empties all slots.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|slot| *lock(slot) = T::default());
    }

    /// Works on the queue with that number, locked; `None` if there is none.
    #[inline]
    pub(super) fn with<R>(&self, number: u32, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut queue = lock(self.0.find(slot_of(number))?);
        (number != 0 && queue.number() == number).then(|| work(&mut queue))
    }
}
