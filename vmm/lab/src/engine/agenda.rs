//! Virtual time, and what is to happen when.
//!
//! One thread acts out everything, one [`Event`] after the other in the order of their times. While something acts, the
//! clock runs ahead by what its steps take, so that stages are stamped when they would be passed; before the next
//! event the clock is set back to that event's time. What one does to another - a message, an answer - is an event of
//! its own, never a call.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};

use refault_bus::clock::Clock;
use refault_bus::pri::{PageGroupResponse, PageRequest};
use refault_nic::Work;

/// The virtual clock, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct VirtualClock(AtomicU64);

impl VirtualClock {
    /// Moves on by what a step took.
    pub(super) fn advance(&self, ns: u64) {
        self.0.store(self.now_ns().saturating_add(ns), Ordering::Relaxed);
    }

    /// The moment at which the next event happens.
    pub(super) fn set(&self, ns: u64) {
        self.0.store(ns, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A worker of the NIC has something to do.
    Work(usize, Work),
    /// A moment comes for which a worker of the NIC waits.
    Expire(usize),
    /// A doorbell reaches the NIC.
    Doorbell {
        /// Whose.
        session: u32,
        /// Of which queue pair of it.
        pair: usize,
    },
    /// A page request reaches the root.
    PageRequest(PageRequest),
    /// An interrupt reaches a processor: its vector.
    Interrupt(u8),
    /// The page request thread takes what is in the queue.
    Thread,
    /// The driver takes what is in its event queue.
    Driver,
    /// A fault handler is through with what it was doing.
    Handler(usize),
    /// An answer reaches the NIC.
    Response(PageGroupResponse),
    /// The program has another request.
    Arrival,
    /// The program sees a completion.
    Completion {
        /// Whose.
        session: u32,
        /// Of the request in which slot.
        slot: u32,
        /// It succeeded.
        success: bool,
    },
    /// A play acts.
    Play,
    /// Something happens to the memory.
    Churn,
}

/// What is to happen, by time; what happens at the same time is in the order in which it was noted.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    noted: u64,
}

impl Agenda {
    /// Notes an event.
    pub(super) fn note(&mut self, at_ns: u64, event: Event) {
        self.noted += 1;
        self.heap.push(Reverse(Entry { at_ns, order: self.noted, event }));
    }

    /// Takes out the events that are `wanted`, in their order.
    pub(super) fn take(&mut self, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let (mut taken, kept): (Vec<_>, Vec<_>) =
            self.heap.drain().map(|Reverse(entry)| entry).partition(|entry| wanted(&entry.event));
        self.heap = kept.into_iter().map(Reverse).collect();
        taken.sort();
        taken.into_iter().map(|entry| entry.event).collect()
    }

    /// Takes the next event.
    pub(super) fn next(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at_ns, entry.event))
    }
}

#[derive(Debug)]
struct Entry {
    at_ns: u64,
    order: u64,
    event: Event,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.order).cmp(&(other.at_ns, other.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_noted() {
        let mut agenda = Agenda::default();
        for (at, vector) in [(5, 1), (3, 2), (5, 3), (3, 4)] {
            agenda.note(at, Event::Interrupt(vector));
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.next())
            .map(|(at, event)| match event {
                Event::Interrupt(vector) => (at, vector),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, [(3, 2), (3, 4), (5, 1), (5, 3)]);
    }
}
