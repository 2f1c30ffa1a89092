//! What an experiment is: plain data, checked.
//!
//! [`Draft`] reads it from a file, where keys may still be set, and [`Draft::check`] makes a [`Scenario`] of it or says
//! what is wrong in which line. [`Scenario::to_toml`] writes it back.

mod draft;
mod read;
pub mod shipped;
#[cfg(test)]
mod tests;
mod write;

use refault_iommu::IommuConfig;
use refault_nic::{NicConfig, RemoteFaults};

pub use refault_timing::{Delay, Timing};

pub use draft::{Draft, ScenarioError, defaults};

/// One experiment. A given scenario, its seed included, has one outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Its name, for reports and files.
    pub name: String,
    /// Where all chance comes from.
    pub seed: u64,
    /// What the program does.
    pub load: Load,
    /// How the NIC and its IOMMU are made.
    pub device: Device,
    /// How the guest handles faults.
    pub guest: Guest,
    /// What happens to the memory meanwhile.
    pub churn: Option<Churn>,
    /// Presets that the timing came from, the first that has a step giving it; a scenario may override steps of them.
    /// For reports: [`Self::timing`] is all that counts.
    pub presets: Vec<String>,
    /// How long every step takes.
    pub timing: Timing,
    /// Requests after which the experiment is over; those in flight are finished.
    pub requests: u64,
}

/// What the program in the guest does: RDMA requests between two areas of its own memory, one of them (the target)
/// as [`Self::pattern`] says.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// Which message of the target is next.
    pub pattern: Pattern,
    /// Bytes of a request; more than a page makes one request touch several.
    pub message_bytes: u32,
    /// Bytes of the target.
    pub region_bytes: u64,
    /// Queue pairs; each request goes to the next one that has room.
    pub queue_pairs: u32,
    /// Requests that a queue pair may have under way.
    pub depth: u32,
    /// When requests are posted.
    pub arrival: Arrival,
    /// Share of the requests that are RDMA WRITEs into the target, 0 to 1; the others are RDMA READs out of it.
    pub write_share: f64,
    /// Share of the requests, 0 to 1, whose pages are taken from memory just before they are posted, in no time: each
    /// of them faults. The other requests fault if their pages were never touched, or if churn took them.
    pub cold_share: f64,
    /// All pages of the target are there, with all rights, when the experiment begins.
    pub warm: bool,
    /// The process maps its memory with pages of 2 MiB instead of 4 KiB.
    pub large_pages: bool,
}

/// An order of messages in the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// One after the other, and again from the start.
    Sequential,
    /// Every `stride_bytes`, a multiple of the message's size; after a round the next message over.
    Strided {
        /// Distance of two messages.
        stride_bytes: u64,
    },
    /// Any, each as likely.
    Random,
    /// Any, the n-th with a weight of 1 / n^`theta`; which is the n-th is shuffled by the seed.
    Zipf {
        /// Skew; 0 is [`Self::Random`], 0.99 is usual.
        theta: f64,
    },
}

/// When requests are posted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// As soon as a queue pair has room: a closed loop.
    Closed,
    /// At random times, independent of each other: an open loop. A request that finds no room waits for it in order,
    /// and its latency counts from its arrival.
    Poisson {
        /// Mean requests a second.
        per_second: f64,
    },
}

/// How the device is made, as far as experiments vary it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Device {
    /// Who translates on-demand memory.
    pub mode: Mode,
    /// Page requests (or page faults) that may be outstanding, 1 to 512.
    pub credits: u32,
    /// Page request queue of the IOMMU in pages of 4 KiB, as a power of two: 0 to 7. Linux has 4.
    pub page_request_order: u8,
    /// Translations that the device TLB holds.
    pub atc_entries: usize,
    /// Translations that the IOMMU holds.
    pub iotlb_entries: usize,
    /// Engines of the NIC; queue pairs are shared out among them.
    pub workers: usize,
    /// Pages asked for on a miss inside one request, the missing one included: 1 to 64.
    pub fault_window: u32,
    /// What a responder does whose memory is not there.
    pub remote_faults: RemoteFaults,
    /// With [`RemoteFaults::Rnr`], after which time the requester comes again: a code of the InfiniBand specification,
    /// as in `ibv_qp_attr`; 1 is 10 us.
    pub min_rnr_timer: u8,
    /// How long the device waits for an answer, in nanoseconds; `None` for as long as it takes.
    pub fault_timeout_ns: Option<u64>,
}

impl Device {
    /// The NIC's configuration.
    pub fn nic(&self) -> NicConfig {
        NicConfig {
            workers: self.workers,
            atc_entries: self.atc_entries,
            page_request_credits: self.credits,
            page_fault_credits: self.credits,
            page_request_timeout_ns: self.fault_timeout_ns,
            fault_window: self.fault_window,
            remote_faults: self.remote_faults,
            ..NicConfig::default()
        }
    }

    /// The IOMMU's configuration.
    pub fn iommu(&self) -> IommuConfig {
        IommuConfig { iotlb_entries: self.iotlb_entries, ..IommuConfig::default() }
    }
}

/// Who translates on-demand memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The IOMMU, by the process' page table; a miss is a page request.
    Pasid,
    /// The NIC, by the region's own table; a miss is an event to the driver.
    Odp,
}

impl Mode {
    /// Its name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pasid => "pasid",
            Self::Odp => "odp",
        }
    }
}

/// How the guest handles faults. How long a step takes is [`Timing`]'s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guest {
    /// Handlers that work at the same time.
    pub handlers: u32,
    /// Share of a fault's handling, 0 to 1, that only one handler at a time can do: the lock.
    pub locked_share: f64,
    /// Faults that a handler takes from the queue at once: they are handled one after the other and answered together.
    pub batch: u32,
    /// Pages after the missing one that are mapped with it, if they are part of the memory and not there: each costs
    /// [`Timing::next_page`].
    pub prefetch: u32,
    /// Share of the faults, 0 to 1, that are major: [`Timing::major`] instead of [`Timing::minor`].
    pub major_share: f64,
}

/// What happens to the target's pages while the device uses them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// What happens.
    pub operation: ChurnOperation,
    /// How often, at random times, a second.
    pub per_second: f64,
    /// Pages of 4 KiB (or of 2 MiB) in a row that each hits.
    pub pages: u32,
}

/// What can happen to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChurnOperation {
    /// It is taken away and its contents come back with the next fault: swap, or cleaning of a cache.
    Evict,
    /// Its contents move to another page: copy-on-write, defragmentation, compaction.
    Move,
    /// It loses the right to be written: fsync, dirty tracking.
    WriteProtect,
}

impl ChurnOperation {
    /// All that can happen.
    pub const ALL: [Self; 3] = [Self::Evict, Self::Move, Self::WriteProtect];

    /// Its name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Evict => "evict",
            Self::Move => "move",
            Self::WriteProtect => "write-protect",
        }
    }
}
