//! The virtual clock, and the queue of future events.
//!
//! One thread simulates everything, one [`SimEvent`] at a time in the order of their times. While an event is simulated, the
//! clock advances by the duration of its steps, so that stages get the right timestamps; before the next event it is set
//! back to that event's time. Messages between the parts are events of their own, never calls.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};

use refault_bus::clock::Clock;
use refault_bus::pri::{PageGroupResponse, PageRequest};
use refault_bus::wire::EthernetFrame;
use refault_nic::Work;

/// The virtual clock, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct VirtualClock(AtomicU64);

impl VirtualClock {
    /// Advances by the duration of a step.
    pub(super) fn advance(&self, ns: u64) {
        self.0.store(self.now_ns().saturating_add(ns), Ordering::Relaxed);
    }

    /// Sets the time of the next event.
    pub(super) fn set(&self, ns: u64) {
        self.0.store(ns, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An event of the simulation.
#[derive(Debug)]
pub(super) enum SimEvent {
    /// A worker of the NIC has work.
    Work(usize, Work),
    /// The deadline of a worker of the NIC.
    Expire(usize),
    /// A doorbell reaches the NIC.
    Doorbell {
        /// Number of the client.
        client: u32,
        /// Index of its queue pair.
        pair: usize,
    },
    /// A page request reaches the IOMMU.
    PageRequest(PageRequest),
    /// An interrupt with this vector reaches a processor.
    Interrupt(u8),
    /// The page request thread runs.
    Thread,
    /// The NIC's driver handles its event queue.
    Driver,
    /// A fault handler has finished its phase.
    Handler(usize),
    /// A page group response reaches the NIC.
    Response(PageGroupResponse),
    /// A frame enters the wire.
    Sent(EthernetFrame),
    /// Frames arrive that are due.
    Arrivals,
    /// A frame has left its port, if the wire pauses.
    Left,
    /// The program generates a request.
    Arrival,
    /// The program sees a completion.
    Completion {
        /// Number of the client.
        client: u32,
        /// Slot of the request.
        slot: u32,
        /// Whether it succeeded.
        success: bool,
    },
    /// The actor acts.
    Actor,
    /// The kernel evicts, moves or write-protects pages.
    Churn,
}

/// Future events by time; events of the same time stay in the order in which they were scheduled.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    scheduled: u64,
}

impl Agenda {
    /// Schedules an event.
    pub(super) fn schedule(&mut self, at_ns: u64, event: SimEvent) {
        self.scheduled += 1;
        self.heap.push(Reverse(Entry { at_ns, order: self.scheduled, event }));
    }

    /// Removes the events that `selected` accepts, and returns them in order.
    pub(super) fn take(&mut self, selected: impl Fn(&SimEvent) -> bool) -> Vec<SimEvent> {
        let (mut taken, kept): (Vec<_>, Vec<_>) =
            self.heap.drain().map(|Reverse(entry)| entry).partition(|entry| selected(&entry.event));
        self.heap = kept.into_iter().map(Reverse).collect();
        taken.sort();
        taken.into_iter().map(|entry| entry.event).collect()
    }

    /// Removes the next event; returns its time and the event.
    pub(super) fn next(&mut self) -> Option<(u64, SimEvent)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at_ns, entry.event))
    }
}

#[derive(Debug)]
struct Entry {
    at_ns: u64,
    order: u64,
    event: SimEvent,
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
    fn events_are_ordered_by_time_then_by_scheduling() {
        let mut agenda = Agenda::default();
        for (at, vector) in [(5, 1), (3, 2), (5, 3), (3, 4)] {
            agenda.schedule(at, SimEvent::Interrupt(vector));
        }
        let order: Vec<_> = std::iter::from_fn(|| agenda.next())
            .map(|(at, event)| match event {
                SimEvent::Interrupt(vector) => (at, vector),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, [(3, 2), (3, 4), (5, 1), (5, 3)]);
    }
}
