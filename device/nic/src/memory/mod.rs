//! Memory regions, translations and copies.
//!
//! A [`Port`] is access to memory under a worker's guard. `resolve` finds the memory behind a key, `page_table`
//! and `on_demand` find a page by walking tables in guest memory (`radix`), the port translates, and `copy` moves bytes
//! between two scatter/gather lists. No translation outlives the guard.

pub(crate) mod access;
mod atc;
pub(crate) mod copy;
pub(crate) mod fast;
pub(crate) mod list;
pub(crate) mod on_demand;
pub(crate) mod page_table;
pub(crate) mod port;
mod publish;
mod radix;
mod recent;
pub(crate) mod region;
pub(crate) mod resolve;

use std::sync::atomic::{AtomicU64, Ordering};

use refault_bus::ats::InvalidationRequest;
use refault_bus::bits::low_u8;
use refault_bus::guard::Guards;
use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::{AddressSpace, Iova};

use crate::config::NicConfig;
use crate::fabric::Fabric;
use crate::stats::NicStats;
use on_demand::OnDemandTable;
use port::{Port, Shard};
use region::RegionTable;

/// What turns addresses into memory: the fabric, the regions, and each worker's share of the device TLB.
pub(crate) struct Memory {
    pub(crate) fabric: Fabric,
    pub(crate) regions: RegionTable,
    /// One for each worker, and the last for register accesses.
    guards: Guards<Shard>,
    /// Next identity of a page table.
    identities: AtomicU64,
    invalidations: AtomicU64,
}

impl Memory {
    /// No regions, and nothing cached.
    pub(crate) fn new(config: &NicConfig, fabric: Fabric) -> Self {
        let entries = config.atc_entries.div_ceil(config.workers);
        Self {
            fabric,
            regions: RegionTable::new(config.max_mr),
            guards: Guards::new((0..=config.workers).map(|_| Shard::new(entries))),
            identities: AtomicU64::new(1),
            invalidations: AtomicU64::new(0),
        }
    }

    /// Access to memory as worker `worker`. Invalidations that wait for its guard go first.
    pub(crate) fn port(&self, worker: usize) -> Port<'_> {
        Port::enter(&self.fabric, &self.regions, self.guards.of(worker))
    }

    /// The number of the guard for register accesses. All CPUs share it: a CPU takes longer to come back than an access
    /// holds it, and invalidations would have to pass through each further guard.
    pub(crate) fn front_guard(&self) -> usize {
        self.guards.count() - 1
    }

    /// Access to memory for register accesses.
    pub(crate) fn front_port(&self) -> Port<'_> {
        self.port(self.front_guard())
    }

    /// An identity that no page table had before.
    pub(crate) fn new_identity(&self) -> u64 {
        self.identities.fetch_add(1, Ordering::Relaxed)
    }

    /// Passes through every guard: afterwards no copy is in flight that did not see what the caller changed before.
    pub(crate) fn pass_guards(&self) {
        self.guards.pass(|_| ());
    }

    /// Forgets all translations.
    pub(crate) fn flush(&self) {
        self.guards.pass(|shard| shard.atc.flush());
    }

    /// Forgets all regions and translations.
    pub(crate) fn clear(&self) {
        self.regions.clear();
        self.guards.pass(|shard| {
            shard.atc.flush();
            shard.regions.forget_all();
        });
    }

    /// A region has changed or is gone: no access that used it as it was is in flight afterwards.
    pub(crate) fn forget_region(&self, key: u32) {
        self.guards.pass(|shard| shard.regions.forget(key));
    }

    /// Forgets what an invalidation names. When it returns, no copy that used it is in flight.
    pub(crate) fn invalidate(&self, request: &InvalidationRequest) {
        let event = |stage| {
            let event = ProbeEvent::new(stage, AddressSpace::of(request.pasid), request.iova);
            ProbeEvent { size_shift: request.size_shift, ..event }
        };
        self.serve_invalidation(event, |shard| shard.atc.invalidate(request));
    }

    /// Forgets what was cached of the table of the on-demand region `key`, for the region's addresses `first` to
    /// `last`, both inclusive. An address plus `shift` is its offset in the table. When it returns, no copy that used
    /// the forgotten translations is in flight.
    pub(crate) fn invalidate_on_demand(
        &self,
        key: u32,
        table: &OnDemandTable,
        (first, last): (u64, u64),
        shift: u64,
    ) {
        let event = |stage| {
            let event = ProbeEvent::new(stage, AddressSpace::Region(key), Iova(first));
            ProbeEvent { size_shift: block_around(first, last), ..event }
        };
        let space = table.space();
        let (first, last) = (first.wrapping_add(shift), last.wrapping_add(shift));
        self.serve_invalidation(event, |shard| shard.atc.forget(space, first, last));
    }

    fn serve_invalidation(&self, event: impl Fn(Stage) -> ProbeEvent, work: impl FnMut(&mut Shard)) {
        self.fabric.record(event(Stage::Invalidate));
        self.guards.pass(work);
        self.invalidations.fetch_add(1, Ordering::Relaxed);
        self.fabric.record(event(Stage::Invalidated));
    }

    /// Adds the counters of all shards.
    pub(crate) fn add_stats(&self, stats: &mut NicStats) {
        stats.invalidations = self.invalidations.load(Ordering::Relaxed);
        self.guards.pass(|shard| stats.add(&shard.stats));
    }
}

/// log2 of the smallest naturally aligned block around a range.
fn block_around(first: u64, last: u64) -> u8 {
    low_u8((u64::BITS - (first ^ last).leading_zeros()).max(12).into())
}
