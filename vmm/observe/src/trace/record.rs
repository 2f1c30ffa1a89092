//! The record of a fault: its stages, and how long each component took.

use refault_bus::{AddressSpace, Iova, PrgIndex};

/// One fault of the device, from the miss to the copy. All times are nanoseconds since the recorder's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRecord {
    /// Index into [`Records::scenarios`](super::Records::scenarios): the scenario in which the fault began.
    pub scenario: u16,
    /// Number of the queue pair whose access missed.
    pub qpn: u32,
    /// The address space: a process', or an on-demand region's.
    pub space: AddressSpace,
    /// Address of the page.
    pub iova: Iova,
    /// Whether the access was a write.
    pub write: bool,
    /// Page request group of the last round; for an on-demand region, the slot of the page fault's token.
    pub group: Option<PrgIndex>,
    /// Page requests, or page fault events, sent for it: more than 1 if the page was gone again when the device retried.
    pub requests: u32,
    /// How it ended.
    pub outcome: FaultOutcome,
    /// The time of each stage.
    pub times: StageTimes,
}

/// How a fault ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultOutcome {
    /// The access was retried and its bytes were copied.
    Copied,
    /// The guest refused the page or the device gave up: the access failed.
    Failed,
    /// The access joined another queue pair's fault on the same page, and was then copied.
    Coalesced,
    /// No end was recorded: the queue pair is gone, or events were lost.
    Abandoned,
}

impl FaultOutcome {
    /// All outcomes, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::Copied, Self::Failed, Self::Coalesced, Self::Abandoned];

    /// The name in `faults.csv`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Failed => "failed",
            Self::Coalesced => "coalesced",
            Self::Abandoned => "abandoned",
        }
    }

    /// The outcome of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// The time of each stage (`refault_bus::probe::Stage`) of a fault; `None` if the stage was not recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// The first miss: the fault begins.
    pub miss: u64,
    /// The miss that began the last round, whose stages follow. Equal to [`Self::miss`] unless the page was gone again
    /// when the device retried.
    pub round: u64,
    /// The page request left the device.
    pub page_request: Option<u64>,
    /// Its entry was in the page request queue.
    pub queued: Option<u64>,
    /// The interrupt was sent; `None` if one was pending already.
    pub interrupt: Option<u64>,
    /// The guest's page request thread took the entry from the queue. This and the next two are known only if the guest
    /// traces them.
    pub taken: Option<u64>,
    /// A handler in the guest began work on the fault.
    pub handling: Option<u64>,
    /// The page was in the page table, or in the region's.
    pub handled: Option<u64>,
    /// The guest's response was read from the invalidation queue.
    pub response: Option<u64>,
    /// The device matched the response and returned the credit.
    pub matched: Option<u64>,
    /// Copied or failed: the fault is over.
    pub end: u64,
}

/// A component that spends a fault's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// The NIC.
    Device,
    /// The IOMMU: page request queue, interrupt, response descriptor.
    Iommu,
    /// The guest's kernel and its filesystem.
    Guest,
}

/// Names of the segments, in the order of the path. The first is for accesses that sent no request of their own. The fifth
/// is the guest's whole part, if its division into the next four is unknown.
pub const SEGMENTS: [&str; 11] = [
    "wait for another's request",
    "send page request",
    "queue page request",
    "raise interrupt",
    "guest handles fault",
    "guest wakes",
    "wait for a handler",
    "map the page",
    "guest responds",
    "deliver response",
    "translate and copy",
];

/// The time between two recorded stages of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// One of [`SEGMENTS`].
    pub name: &'static str,
    /// The component that spends the time.
    pub component: Component,
    /// Start in nanoseconds.
    pub from: u64,
    /// End in nanoseconds, not before `from`.
    pub to: u64,
}

/// A fault's duration by component, in nanoseconds. The four add up to [`StageTimes::total`].
///
/// * *device*: miss to page request, and matched response to copy;
/// * *IOMMU*: page request to queue entry and interrupt, and response descriptor to match;
/// * *guest*: interrupt to response - or queue entry to response, when no interrupt was sent because one was
///   pending;
/// * *again*: everything before the last round, in faults whose page was gone again when the device retried.
///
/// Time up to a stage that was not recorded belongs to the component where it began: with a guest that never answers, the
/// guest's part lasts until the device gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultSplit {
    /// The NIC's part.
    pub device: u64,
    /// The IOMMU's part.
    pub iommu: u64,
    /// The guest's part.
    pub guest: u64,
    /// Rounds that ended with the page gone again.
    pub again: u64,
}

impl StageTimes {
    /// Nanoseconds from the first miss to the end.
    pub fn total(&self) -> u64 {
        self.end.saturating_sub(self.miss)
    }

    /// The same times shifted by `ns`.
    pub fn later_by(&self, ns: u64) -> Self {
        let later = |at: Option<u64>| at.map(|at| at + ns);
        Self {
            miss: self.miss + ns,
            round: self.round + ns,
            page_request: later(self.page_request),
            queued: later(self.queued),
            interrupt: later(self.interrupt),
            taken: later(self.taken),
            handling: later(self.handling),
            handled: later(self.handled),
            response: later(self.response),
            matched: later(self.matched),
            end: self.end + ns,
        }
    }

    /// The segments of the last round between recorded stages, gapless and in order. Threads timestamp concurrently, so a
    /// stage may have a later time than its successor; it then counts as simultaneous.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + use<> {
        let marks = self.marks();
        let end = self.end.max(self.round);
        let mut limit = end;
        let mut starts = [0; 9];
        for (start, mark) in starts.iter_mut().zip(&marks).rev() {
            limit = mark.time.unwrap_or(limit).clamp(self.round, limit);
            *start = limit;
        }
        (0..marks.len()).filter_map(move |i| {
            marks[i].time?;
            let to = (i + 1..marks.len()).find(|&j| marks[j].time.is_some()).map_or(end, |j| starts[j]);
            Some(Segment { name: marks[i].name, component: marks[i].component, from: starts[i], to })
        })
    }

    /// The total by component.
    pub fn split(&self) -> FaultSplit {
        let mut split = FaultSplit { again: self.round.saturating_sub(self.miss), ..Default::default() };
        for segment in self.segments() {
            let part = match segment.component {
                Component::Device => &mut split.device,
                Component::Iommu => &mut split.iommu,
                Component::Guest => &mut split.guest,
            };
            *part += segment.to - segment.from;
        }
        split
    }

    /// The stages of the last round, each with the segment that begins there.
    fn marks(&self) -> [Mark; 9] {
        // A guest that is awake may take the entry, or even respond, before the interrupt is sent: then the interrupt is
        // not on this fault's path.
        let acted = self.taken.into_iter().chain(self.response).min();
        let interrupt = self.interrupt.filter(|&sent| acted.is_none_or(|acted| sent <= acted));
        let queued_by = if interrupt.is_some() { Component::Iommu } else { Component::Guest };
        let [wait, send, queue, interrupts, whole, wakes, waits, maps, responds, deliver, copy] = SEGMENTS;
        let is_split = self.taken.or(self.handling).or(self.handled).is_some();
        let guest = if is_split { wakes } else { whole };
        let begins = if self.page_request.is_some() { send } else { wait };
        let after_queue = if interrupt.is_some() { interrupts } else { guest };
        [
            Mark { time: Some(self.round), component: Component::Device, name: begins },
            Mark { time: self.page_request, component: Component::Iommu, name: queue },
            Mark { time: self.queued, component: queued_by, name: after_queue },
            Mark { time: interrupt, component: Component::Guest, name: guest },
            Mark { time: self.taken, component: Component::Guest, name: waits },
            Mark { time: self.handling, component: Component::Guest, name: maps },
            Mark { time: self.handled, component: Component::Guest, name: responds },
            Mark { time: self.response, component: Component::Iommu, name: deliver },
            Mark { time: self.matched, component: Component::Device, name: copy },
        ]
    }
}

/// One stage and the segment that begins there.
#[derive(Clone, Copy)]
struct Mark {
    time: Option<u64>,
    component: Component,
    name: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> StageTimes {
        StageTimes {
            miss: 100,
            round: 100,
            page_request: Some(110),
            queued: Some(130),
            interrupt: Some(160),
            taken: None,
            handling: None,
            handled: None,
            response: Some(1160),
            matched: Some(1200),
            end: 1300,
        }
    }

    fn split(device: u64, iommu: u64, guest: u64, again: u64) -> FaultSplit {
        FaultSplit { device, iommu, guest, again }
    }

    #[test]
    fn every_nanosecond_belongs_to_a_component() {
        assert_eq!(full().split(), split(110, 90, 1000, 0));
        let names: Vec<_> = full().segments().map(|s| s.name).collect();
        assert_eq!(names, [&SEGMENTS[1..5], &SEGMENTS[9..]].concat());
    }

    #[test]
    fn guest_stages_divide_the_guests_part() {
        let times = StageTimes { taken: Some(300), handling: Some(500), handled: Some(1100), ..full() };
        assert_eq!(times.split(), split(110, 90, 1000, 0));
        let names: Vec<_> = times.segments().map(|s| s.name).collect();
        assert_eq!(names, [&SEGMENTS[1..4], &SEGMENTS[5..]].concat());
        // The thread was awake and took the entry before the interrupt was sent.
        let awake = StageTimes { taken: Some(150), ..times };
        assert_eq!(awake.split(), split(110, 60, 1030, 0));
    }

    #[test]
    fn without_an_interrupt_the_guests_part_begins_at_the_queue() {
        assert_eq!(StageTimes { interrupt: None, ..full() }.split(), split(110, 60, 1030, 0));
    }

    #[test]
    fn an_interrupt_after_the_response_is_not_on_the_path() {
        assert_eq!(StageTimes { interrupt: Some(1170), ..full() }.split(), split(110, 60, 1030, 0));
    }

    #[test]
    fn an_unanswered_request_is_the_guests_time() {
        let times = StageTimes { response: None, matched: None, ..full() };
        assert_eq!(times.split(), split(10, 50, 1140, 0));
    }

    #[test]
    fn earlier_rounds_are_separate() {
        assert_eq!(StageTimes { miss: 40, ..full() }.split(), split(110, 90, 1000, 60));
    }

    #[test]
    fn a_stage_stamped_after_its_successor_takes_no_time() {
        let late = StageTimes { queued: Some(1165), interrupt: None, ..full() };
        assert_eq!(late.split(), split(110, 1090, 0, 0));
    }

    proptest::proptest! {
        #[test]
        fn segments_are_gapless_whatever_the_stamps(stamps in proptest::array::uniform10(proptest::option::of(0u64..1000)), miss in 0u64..500, more in 0u64..1500) {
            let times = StageTimes {
                miss,
                round: miss + stamps[0].unwrap_or(0),
                page_request: stamps[1],
                queued: stamps[2],
                interrupt: stamps[3],
                taken: stamps[7],
                handling: stamps[8],
                handled: stamps[9],
                response: stamps[4],
                matched: stamps[5],
                end: miss + stamps[0].unwrap_or(0) + more,
            };
            let mut at = times.round;
            for segment in times.segments() {
                proptest::prop_assert_eq!(segment.from, at);
                proptest::prop_assert!(segment.to >= segment.from);
                at = segment.to;
            }
            proptest::prop_assert_eq!(at, times.end);
            let parts = times.split();
            proptest::prop_assert_eq!(parts.device + parts.iommu + parts.guest + parts.again, times.total());
        }
    }
}
