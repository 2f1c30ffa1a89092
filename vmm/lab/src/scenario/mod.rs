//! The description of an experiment: plain, validated data.
//!
//! [`Draft`] reads a file, in which keys may still be overridden; [`Draft::check`] turns it into a [`Scenario`], or
//! returns an error with its line. [`Scenario::to_toml`] writes it back.

mod draft;
mod read;
pub mod shipped;
#[cfg(test)]
mod tests;
mod write;

use refault_bus::bits::low_u32;
use refault_iommu::IommuConfig;
use refault_link::{Impairments, Rate};
use refault_nic::{LinkLayer, NicConfig, PacketConfig, RemoteFaults};
use refault_observe::numbers::whole;
use refault_timing::UNLIMITED_BYTES_PER_US;

use crate::machine::NEAR_END;

pub use refault_timing::{Delay, Timing};

use self::read::QUEUE;
pub use draft::{Draft, ScenarioError, defaults};

/// One experiment. A scenario, including its seed, determines its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The name in reports and files.
    pub name: String,
    /// Seed of all random choices.
    pub seed: u64,
    /// The program's requests.
    pub load: Load,
    /// Configuration of the NIC and its IOMMU.
    pub device: Device,
    /// How the guest handles faults.
    pub guest: Guest,
    /// Changes to the target's pages while the device uses them.
    pub churn: Option<Churn>,
    /// Connections are in packets on this wire; without one requester and responder meet in one step.
    pub wire: Option<Wire>,
    /// Presets of the timing; for each step, the first one that has it applies unless the scenario overrides it. Only for
    /// reports: [`Self::timing`] already includes them.
    pub presets: Vec<String>,
    /// The duration of every step.
    pub timing: Timing,
    /// Number of requests; the experiment ends when all have completed.
    pub requests: u64,
}

/// The program in the guest: RDMA requests between two areas of its own memory. One of them, the target, is accessed in the
/// order of [`Self::pattern`].
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// The order of messages in the target.
    pub pattern: Pattern,
    /// Size of each request in bytes; one larger than a page touches several.
    pub message_bytes: u32,
    /// Size of the target in bytes.
    pub region_bytes: u64,
    /// Number of queue pairs; each request goes to the next one with a free slot.
    pub queue_pairs: u32,
    /// Most requests in flight on a queue pair.
    pub depth: u32,
    /// Arrival times of requests.
    pub arrival: Arrival,
    /// Share of requests, 0 to 1, that are RDMA WRITEs into the target; the others are RDMA READs from it.
    pub write_share: f64,
    /// Share of requests, 0 to 1, whose pages are evicted just before they are posted, in no time: each of them faults.
    /// The other requests fault if their pages were never touched, or if churn evicted them.
    pub cold_share: f64,
    /// Number of queue pairs, the last ones, whose requests are never evicted first: what others' faults do to them.
    pub bystanders: u32,
    /// Whether all pages of the target are present and writable at the start.
    pub warm: bool,
    /// Whether the process maps the target with pages of 2 MiB instead of 4 KiB.
    pub large_pages: bool,
}

/// The order in which messages of the target are accessed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// In order, repeatedly.
    Sequential,
    /// In strides; each round starts one message further.
    Strided {
        /// Distance between two messages, a multiple of the message size.
        stride_bytes: u64,
    },
    /// Uniformly random.
    Random,
    /// Random, the message of rank n with a weight of 1 / n^`theta`. The seed shuffles the ranks.
    Zipf {
        /// Skew: 0 is uniform, 0.99 is customary.
        theta: f64,
    },
}

/// Arrival times of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// A closed loop: a request arrives when a slot becomes free.
    Closed,
    /// An open loop: independent random times. A request without a free slot waits in order, and its latency counts from
    /// its arrival.
    Poisson {
        /// Mean number of requests per second.
        per_second: f64,
    },
}

/// The configuration of the device, as far as experiments vary it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Device {
    /// How the target is translated.
    pub mode: TranslationMode,
    /// Most outstanding page requests (or page fault events), 1 to 512.
    pub credits: u32,
    /// log2 of the page request queue's size in pages of 4 KiB, 0 to 7. Linux uses 4.
    pub page_request_order: u8,
    /// Entries of the device TLB.
    pub atc_entries: usize,
    /// Entries of the IOTLB.
    pub iotlb_entries: usize,
    /// Workers of the NIC; queue pairs are distributed among them.
    pub workers: usize,
    /// Pages requested on a miss, the missing one included: 1 to 64.
    pub fault_window: u32,
    /// What a responder does when its page is missing.
    pub remote_faults: RemoteFaults,
    /// With [`RemoteFaults::Rnr`] or on a [`Wire`], the delay before the requester retries: a timer code of the InfiniBand specification
    /// (9.7.5.2.8), as in `ibv_qp_attr`; 1 is 10 us.
    pub min_rnr_timer: u8,
    /// Timeout of a page request, in nanoseconds; `None` for no timeout.
    pub fault_timeout_ns: Option<u64>,
}

impl Device {
    fn nic(&self) -> NicConfig {
        NicConfig {
            workers: self.workers,
            atc_entries: self.atc_entries,
            page_request_credits: self.credits,
            page_fault_credits: self.credits,
            // An experiment has one process.
            credit_quota: false,
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

/// The wire does not stop, whatever responders keep.
pub const NO_PAUSE: u64 = 1 << 30;

/// A wire from the NIC to itself, and how connections behave on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wire {
    /// Share of packets, 0 to 1, that are lost.
    pub loss_share: f64,
    /// Nanoseconds that a packet takes: half of a round trip.
    pub delay_ns: u64,
    /// Bytes per microsecond in each direction; [`UNLIMITED_BYTES_PER_US`] for no limit.
    pub bytes_per_us: u64,
    /// What else happens to packets: neither loss, nor delay, nor rate. Its seed is added to the scenario's.
    pub impairments: Impairments,
    /// Packets of a queue pair in flight, at most.
    pub window: u32,
    /// Packets that a queue pair keeps while its responder waits for a page, at most.
    pub buffer: u32,
    /// Bytes that responders may keep for pages before the wire stops, [`NO_PAUSE`] for no such limit.
    pub pause_bytes: u64,
    /// Whether the responder asks for all pages of a message with its first packet.
    pub prefault: bool,
    /// Whether requesters have the bug called damming.
    pub damming: bool,
    /// Timeout without an acknowledgement: a code of the InfiniBand specification (9.7.6.1.3), 4.096 us * 2^code; 0 is never.
    pub ack_timeout: u8,
    /// Timeouts, and NAKs for a lost packet, without progress before a request fails: 0 to 7.
    pub retries: u8,
}

impl Wire {
    fn packets(&self) -> PacketConfig {
        let Self { window, buffer, pause_bytes, prefault, damming, .. } = *self;
        let pause_above = Some(pause_bytes).filter(|&bytes| bytes != NO_PAUSE);
        PacketConfig {
            window,
            fault_buffer: buffer,
            pause_above,
            prefault,
            damming,
            ..PacketConfig::default()
        }
    }

    /// What happens besides loss, delay and rate, as a text; `None` for nothing.
    pub(crate) fn others(&self) -> Option<String> {
        let usual = Impairments::default();
        let queue_bytes = match self.impairments.queue_bytes {
            QUEUE => usual.queue_bytes,
            bytes => bytes,
        };
        let others = Impairments { queue_bytes, ..self.impairments.clone() };
        (others != usual).then(|| others.to_string())
    }

    /// What happens to the packets of a direction in an experiment with this seed.
    pub fn impairments(&self, seed: u64) -> Impairments {
        let limit = Some(self.bytes_per_us).filter(|&rate| rate != UNLIMITED_BYTES_PER_US);
        Impairments {
            loss: Rate::new(low_u32(whole((self.loss_share * 1e9).round()))),
            delay_ns: self.delay_ns,
            bits_per_second: limit.map(|bytes_per_us| bytes_per_us.saturating_mul(8_000_000)),
            seed: self.impairments.seed.wrapping_add(seed),
            ..self.impairments.clone()
        }
    }
}

impl Scenario {
    /// The NIC's configuration.
    pub fn nic(&self) -> NicConfig {
        let device = self.device.nic();
        match &self.wire {
            None => device,
            Some(wire) => NicConfig {
                link: LinkLayer::Ethernet { mac: NEAR_END.mac, roce: true },
                packets: wire.packets(),
                ..device
            },
        }
    }
}

/// How the target is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TranslationMode {
    /// By the IOMMU, with the process's page table; a miss becomes a page request.
    Pasid,
    /// By the NIC, with the on-demand region's own table; a miss becomes an event for the driver.
    Odp,
}

impl TranslationMode {
    /// The name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pasid => "pasid",
            Self::Odp => "odp",
        }
    }
}

/// How the guest handles faults. Durations are in [`Timing`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guest {
    /// Number of concurrent handlers.
    pub handlers: u32,
    /// Share of a fault's handling, 0 to 1, that runs under a lock, in one handler at a time.
    pub locked_share: f64,
    /// Faults that a handler takes at once: they are handled one by one and answered together.
    pub batch: u32,
    /// Most pages after the missing one that are mapped with it, if they are missing, too. Each takes
    /// [`Timing::next_page`].
    pub prefetch: u32,
    /// Share of faults, 0 to 1, that take [`Timing::major`] instead of [`Timing::minor`].
    pub major_share: f64,
}

/// Changes to the target's pages while the device uses them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// The kind of change.
    pub operation: ChurnOperation,
    /// Mean number of changes per second, at random times.
    pub per_second: f64,
    /// Consecutive pages of 4 KiB (or 2 MiB) that a change affects.
    pub pages: u32,
}

/// A change to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChurnOperation {
    /// It is evicted; the next fault restores its contents: swap, or reclaim of a cache.
    Evict,
    /// Its contents move to another page: copy-on-write, defragmentation, compaction.
    Move,
    /// It is write-protected: fsync, dirty tracking.
    WriteProtect,
}

impl ChurnOperation {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Evict, Self::Move, Self::WriteProtect];

    /// The name in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Evict => "evict",
            Self::Move => "move",
            Self::WriteProtect => "write-protect",
        }
    }
}
