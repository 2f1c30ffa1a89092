//! Observation of the path of a DMA. Rows are those of the table "One DMA" in docs/architecture.md.
//!
//! Every fault is observed: NIC and IOMMU report each [`Stage`] of it to a [`Probe`], which adds the time. Requests are
//! only sampled: the device takes the times itself, with the clock that it has for timeouts, and reports them in one
//! [`RequestEvent`] when the request ends. So a request outside the sample costs no event.

use crate::{AddressSpace, Iova, PrgIndex};

/// The stages of a fault. All but those of row *handling* are visible from outside the guest.
///
/// A fault takes one of two ways: a page request through the IOMMU, or a page fault event of an on-demand region from
/// the NIC to its driver. Each stage exists in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Row *miss*: the page is missing, or lacks the right; the fault begins.
    Miss,
    /// Row *park*: a credit is taken and the page request leaves the device. Or: a token is taken for a page fault.
    PageRequest,
    /// Row *queue*: the entry is in the page request queue. Or: in the event queue.
    Queued,
    /// Row *queue*: the interrupt was sent. Missing if an earlier one is still pending.
    Interrupt,
    /// Row *handling*, seen by the guest: its page request thread took the entry from the queue.
    Taken,
    /// Row *handling*, seen by the guest: a handler began to handle the fault.
    Handling,
    /// Row *handling*, seen by the guest: the page is in the table, the response is still to be sent.
    Handled,
    /// Row *answer*: the guest's page group response was read from the invalidation queue. Or: its resume command from the
    /// command lane.
    Response,
    /// Row *match*: the device matched the group, or the token, and returned the credit.
    Matched,
    /// Row *copy*: the access was translated again and copied; end of the fault.
    Copied,
    /// In place of row *copy*: the guest refused the page, or the device gave up, and the access fails; end of the fault.
    Failed,
    /// An invalidation request arrived at the device.
    Invalidate,
    /// The invalidation is complete: all copies that used the old translation have landed.
    Invalidated,
}

/// One fault, or invalidation, at one stage. Fields that the stage does not know are zero or `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeEvent {
    /// The stage that was reached.
    pub stage: Stage,
    /// The page request group, or the slot of the page fault's token: connects the stages of one fault.
    pub group: Option<PrgIndex>,
    /// The address space of `iova`.
    pub space: AddressSpace,
    /// First address of the page, or of the invalidated block.
    pub iova: Iova,
    /// log2 of the size in bytes: of the block for invalidations, otherwise 12.
    pub size_shift: u8,
    /// The access is a write.
    pub write: bool,
    /// Number of the queue pair that made the access; zero where it is not known.
    pub qpn: u32,
}

impl ProbeEvent {
    /// An event of `stage` about the page at `iova`.
    pub const fn new(stage: Stage, space: AddressSpace, iova: Iova) -> Self {
        Self { stage, group: None, space, iova, size_shift: 12, write: false, qpn: 0 }
    }
}

/// One sampled request, reported when it ends. Times are in nanoseconds of the device's clock; those of rows that the
/// request did not reach are `None`.
///
/// A queue pair works on one request at a time: its faults between [`Self::fetched_ns`] and [`Self::end_ns`] belong to
/// this request, and have rows *miss* to *match*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestEvent {
    /// Number of the queue pair that posted it.
    pub qpn: u32,
    /// Index of the request on that queue pair, from zero, modulo 2^32.
    pub index: u32,
    /// Operation, as the device's interface encodes it.
    pub opcode: u8,
    /// Completion status, as the device's interface encodes it; zero is success.
    pub status: u8,
    /// Length of the message in bytes.
    pub bytes: u32,
    /// Number of page faults.
    pub faults: u32,
    /// Row *doorbell*: the first doorbell since the device last read the queue. `None` if the device was still reading the
    /// queue and found the request without one.
    pub doorbell_ns: Option<u64>,
    /// Row *fetch*: the request was read and decoded.
    pub fetched_ns: u64,
    /// Rows *check* to *walk*: the first bytes were translated at both ends.
    pub translated_ns: Option<u64>,
    /// Source of these translations; `None` if there were none.
    pub translator: Option<Translator>,
    /// Row *copy*: all bytes have landed, and the peer is notified.
    pub landed_ns: Option<u64>,
    /// Row *completion*: the completion entry is in memory. `None` if the request asked for no completion.
    pub written_ns: Option<u64>,
    /// Row *completion*: an interrupt was raised for the completion.
    pub interrupted: bool,
    /// The device has finished the request.
    pub end_ns: u64,
}

/// The source of a translation; of several translations, the slowest one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Translator {
    /// The device TLB, or the device's cache of a region's own table.
    DeviceTlb,
    /// The IOMMU, after a miss in the device TLB.
    Iommu,
    /// A walk of the region's own table.
    Table,
}

impl Translator {
    /// The name in recorded files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceTlb => "device-tlb",
            Self::Iommu => "iommu",
            Self::Table => "table",
        }
    }
}

/// A receiver of events. Called on the fault path by several threads, some of which hold locks of their device, so it must
/// not block or call back into the device.
pub trait Probe: Send + Sync {
    /// Records one event at the current time.
    fn record(&self, event: &ProbeEvent);

    /// Records a sampled request that has ended.
    fn request(&self, _event: &RequestEvent) {}
}

/// The probe that records nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn record(&self, _event: &ProbeEvent) {}
}
