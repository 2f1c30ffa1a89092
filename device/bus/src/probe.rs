//! Observation of "one DMA, end to end" (docs/architecture.md).
//!
//! Every fault: its rows are [`Stage`]s, and whoever passes one says so to a [`Probe`], which stamps it. Of requests
//! that run through, some: the device stamps the rows itself, with the clock that it has for time-outs, and tells of
//! them at once when the request is over ([`RequestEvent`]). So a request that is not watched costs no event.

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

/// One request that a device was asked to watch, when it is over. All times are of the device's clock, in nanoseconds;
/// those of rows that it did not pass are `None`.
///
/// A queue pair works on one request at a time: its faults between [`Self::fetched_ns`] and [`Self::end_ns`] are this
/// request's, and have rows 7 to 12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestEvent {
    /// The queue pair that sent it.
    pub qpn: u32,
    /// Its number on that queue pair: counts from zero, modulo 2^32.
    pub index: u32,
    /// What it asks for, as the device's interface encodes it.
    pub opcode: u8,
    /// How it ended, as the device's interface encodes it; zero is success.
    pub status: u8,
    /// Bytes of the message.
    pub bytes: u32,
    /// Pages that were missing.
    pub faults: u32,
    /// Row 2: the first doorbell since the device had looked at the queue before. `None` if the device was awake and
    /// found the request by itself.
    pub doorbell_ns: Option<u64>,
    /// Row 3: it was read and decoded.
    pub fetched_ns: u64,
    /// Rows 4 to 6: the first bytes were translated at both ends, and from where.
    pub translated_ns: Option<u64>,
    /// What answered these translations. `None` if there was none.
    pub translator: Option<Translator>,
    /// Row 13: all bytes have landed, and the peer was told.
    pub landed_ns: Option<u64>,
    /// Row 15: the completion entry is in memory. `None` if the request asked for none.
    pub written_ns: Option<u64>,
    /// Row 15: an interrupt was raised for it.
    pub interrupted: bool,
    /// The device is done with it.
    pub end_ns: u64,
}

/// What answered the translations of a piece of memory: the slowest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Translator {
    /// The device TLB, or what the device remembers of a region's own table.
    DeviceTlb,
    /// The IOMMU.
    Iommu,
    /// The region's own table, which was walked.
    Table,
}

impl Translator {
    /// Its name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeviceTlb => "device-tlb",
            Self::Iommu => "iommu",
            Self::Table => "table",
        }
    }
}

/// Takes events. Called on the fault path, by several threads: must not block.
pub trait Probe: Send + Sync {
    /// Notes one event at the current time.
    fn record(&self, event: &ProbeEvent);

    /// Notes a watched request that is over. Whoever does not ask for any hears of none.
    fn request(&self, _event: &RequestEvent) {}
}

/// The probe that notes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn record(&self, _event: &ProbeEvent) {}
}
