//! Observation: each row of "one DMA, end to end" (docs/architecture.md) is a [`Stage`], and whoever passes
//! it says so to a [`Probe`]. The probe has the clock; the models have none.

use crate::{AddressSpace, Iova, PrgIndex};

/// The steps of one DMA that a probe can see. All but those of row 10 are seen from outside the guest.
///
/// A fault takes one of two ways: as a page request through the IOMMU, or as a page fault event of an on-demand
/// region from the NIC to its driver. The stages correspond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Row 5: the device TLB and the IOMMU both missed; the fault begins.
    Miss,
    /// Row 8: the page request leaves the device, a credit is taken. Or: a token is taken for a page fault.
    PageRequest,
    /// Row 9: the entry is in the page request queue. Or: in the event queue.
    Queued,
    /// Row 9: the interrupt was sent (it is not, if one is still pending).
    Interrupt,
    /// Row 10, known only to the guest: its page request thread took the entry from the queue.
    Taken,
    /// Row 10, known only to the guest: a handler began with the fault.
    Handling,
    /// Row 10, known only to the guest: the page is in the table; what follows is the answer.
    Handled,
    /// Row 11: the guest's page group response was read from the invalidation queue. Or: the resume command from the
    /// command lane.
    Response,
    /// Row 12: the device matched the group, or the token, and gave the credit back.
    Matched,
    /// Row 13: the access was translated again and copied; the fault is over.
    Copied,
    /// Row 12: the guest refused the page, or the device gave up; the access fails.
    Failed,
    /// An invalidation arrived at the device.
    Invalidate,
    /// The invalidation is complete: all copies that used the old translation have landed.
    Invalidated,
}

/// One passage of one stage. Fields that a stage does not know are zero or `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeEvent {
    /// What happened.
    pub stage: Stage,
    /// The page request group, or the slot of the page fault's token: what ties the stages of one fault together.
    pub group: Option<PrgIndex>,
    /// The address space.
    pub space: AddressSpace,
    /// The page, or the first address of an invalidated block.
    pub iova: Iova,
    /// log2 of the block for invalidations, 12 for pages.
    pub size_shift: u8,
    /// A write was wanted.
    pub write: bool,
    /// The queue pair whose access this is; zero where it is not known.
    pub qpn: u32,
}

impl ProbeEvent {
    /// An event of `stage` about the page at `iova`.
    pub const fn new(stage: Stage, space: AddressSpace, iova: Iova) -> Self {
        Self { stage, group: None, space, iova, size_shift: 12, write: false, qpn: 0 }
    }
}

/// Takes events. Called on the fault path, by several threads: must not block.
pub trait Probe: Send + Sync {
    /// Notes one event at the current time.
    fn record(&self, event: &ProbeEvent);
}

/// The probe that notes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn record(&self, _event: &ProbeEvent) {}
}
