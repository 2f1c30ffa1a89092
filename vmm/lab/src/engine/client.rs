//! A program's resources on the machine: address space, regions and queue pairs. The kernel releases them when it ends.

use std::collections::VecDeque;
use std::sync::Arc;

use refault_abi::codes::{ACCESS_LOCAL_WRITE, ACCESS_REMOTE_READ, ACCESS_REMOTE_WRITE, AccessRights};
use refault_abi::command::CMD_DESTROY_QP;
use refault_bus::bits::{index, low_u8};
use refault_bus::{Iova, Pasid};
use refault_model::nic::{
    Buffer, CompletionQueue, Context, Driver, EventQueue, MemoryRegion, OnDemandRegion, QueuePair,
    QueuePairSetup, Umem, page_table,
};
use refault_model::paging::{PageSize, Rights};
use refault_model::{ModelError, Process};
use refault_roce::Psn;

use crate::machine::{FAR_END, LabMachine, ProgramObjects};
use crate::scenario::{Device, Load, TranslationMode, Wire};

/// The PASID of programs.
const PASID: Pasid = Pasid::truncated(1);
/// The local buffers: source of writes, destination of reads.
pub(super) const SOURCE: Iova = Iova(0x7f00_0000_0000);
/// The target of all requests.
pub(super) const TARGET: Iova = Iova(0x7f80_0000_0000);
/// Access rights of the target region.
const ACCESS: AccessRights = ACCESS_LOCAL_WRITE.union(ACCESS_REMOTE_WRITE).union(ACCESS_REMOTE_READ);
/// Packet numbers between two connections of the same queue pairs: 2^24 divided by the golden ratio, so that connections of
/// which something may still be on the wire, though they are thousands, have numbers far apart.
const PSN_STEP: u32 = 0x9e_3779;
/// MSI-X vector of completion events, which the program does not use.
const QUEUE_VECTOR: u16 = 2;

/// A program that uses the NIC, with its resources.
pub(super) struct Client {
    /// Distinguishes events of this client from those of killed ones.
    pub(super) number: u32,
    pub(super) process: Arc<Process>,
    /// Whether the target is translated by the IOMMU.
    by_pasid: bool,
    context: Context,
    pd: u32,
    events: EventQueue,
    pub(super) completions: CompletionQueue,
    local: MemoryRegion,
    /// The local region's page table, if it has one.
    _tables: Vec<Buffer>,
    target: TargetRegion,
    pub(super) pairs: Vec<Connection>,
    /// Free slots, the one that was free longest first.
    pub(super) free: VecDeque<u32>,
    /// The request in each slot.
    pub(super) slots: Vec<RequestSlot>,
}

/// How the target is registered.
enum TargetRegion {
    /// As part of the region over the whole address space.
    Pasid(MemoryRegion),
    /// As an on-demand region.
    OnDemand(Arc<Umem>),
}

/// A request in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestSlot {
    /// Virtual time of its arrival.
    pub(super) arrived_ns: u64,
    /// Whether it writes into the target.
    pub(super) writes: bool,
    /// Whether its pages were evicted first.
    pub(super) cold: bool,
}

/// How a connection's two ends are connected.
#[derive(Clone, Copy, Debug)]
struct Terms {
    min_rnr_timer: u8,
    /// Over the wire: the ACK timeout and the retries.
    wire: Option<(u8, u8)>,
}

/// A connected pair of queue pairs: the program's, and the responder's on the same device.
pub(super) struct Connection {
    pub(super) sender: QueuePair,
    receiver: QueuePair,
    terms: Terms,
    /// Number of the first packet of both ends.
    psn: Psn,
    /// Requests in flight.
    pub(super) pending: u32,
    /// A request failed: no more are posted until all have completed and the pair is reconnected.
    pub(super) broken: bool,
}

impl Client {
    /// Creates the resources for a process that has the target mapped, with `sources` local buffers.
    pub(super) fn open(
        machine: &LabMachine,
        setup: &Load,
        (device, wire): (&Device, Option<&Wire>),
        process: Arc<Process>,
        (number, sources): (u32, u32),
    ) -> Result<Self, ModelError> {
        let driver = &machine.driver;
        let slots = setup.queue_pairs * setup.depth;
        let bytes = u64::from(setup.message_bytes) * u64::from(sources);
        let bytes = bytes.next_multiple_of(PageSize::Large.bytes());
        process.map_area(SOURCE, bytes, Rights::Write, PageSize::Large);
        process.populate(SOURCE, bytes)?;
        let by_pasid = device.mode == TranslationMode::Pasid;
        if by_pasid {
            process.bind(&machine.function, PASID)?;
        }
        let context = driver.create_context(by_pasid.then_some(PASID))?;
        let pd = driver.create_pd(context)?;
        let (local, tables, target) = match device.mode {
            TranslationMode::Pasid => {
                let region = driver.register_process(pd)?;
                (region, Vec::new(), TargetRegion::Pasid(region))
            }
            TranslationMode::Odp => {
                let (local, tables) = pin(machine, &process, pd, bytes)?;
                let range = (TARGET, setup.region_bytes.next_multiple_of(PageSize::Small.bytes()));
                let region = OnDemandRegion::create(driver, pd, range, ACCESS, &machine.faults)?;
                let umem = Umem::begin(region, &process, &machine.faults);
                (local, tables, TargetRegion::OnDemand(umem))
            }
        };
        let events = driver.create_event_queue(QUEUE_VECTOR, 6)?;
        let log = log2(slots.saturating_mul(2));
        let completions = driver.create_completion_queue(context, events.number(), log)?;
        let (cqn, eqn) = (completions.number(), events.number());
        let of_pair = QueuePairSetup { pd, context, cqn, eqn, log_sq: log2(setup.depth), log_rq: 1 };
        let wire = wire.map(|wire| (wire.ack_timeout, wire.retries));
        let terms = Terms { min_rnr_timer: device.min_rnr_timer, wire };
        let pair = |_| Connection::create(driver, of_pair, terms);
        let pairs = (0..setup.queue_pairs).map(pair).collect::<Result<_, _>>()?;
        // Round-robin over the queue pairs.
        let free = (0..slots).map(|n| n % setup.queue_pairs * setup.depth + n / setup.queue_pairs).collect();
        let slots = vec![RequestSlot::default(); slots as usize];
        let client = Self {
            number,
            process,
            by_pasid,
            context,
            pd,
            events,
            completions,
            local,
            _tables: tables,
            target,
            pairs,
            free,
            slots,
        };
        Ok(client)
    }

    /// lkey of the source.
    pub(super) fn local_key(&self) -> u32 {
        self.local.key
    }

    /// rkey of the target.
    pub(super) fn remote_key(&self) -> u32 {
        match &self.target {
            TargetRegion::Pasid(region) => region.key,
            TargetRegion::OnDemand(umem) => umem.region().region().key,
        }
    }

    /// The object that fills the on-demand region's table, if the target is one.
    pub(super) fn umem(&self) -> Option<Arc<Umem>> {
        match &self.target {
            TargetRegion::Pasid(_) => None,
            TargetRegion::OnDemand(umem) => Some(umem.clone()),
        }
    }

    /// Tears down a killed program in the kernel's order: detach the address space, stop the device's context, then destroy
    /// queues and regions, and unmap all memory. `refuse` answers the page requests that are still queued.
    pub(super) fn kill(
        &mut self,
        machine: &LabMachine,
        refuse: &mut dyn FnMut() -> Result<(), ModelError>,
    ) -> Result<(), ModelError> {
        let driver = &machine.driver;
        if self.by_pasid {
            machine.function.release(PASID)?;
        }
        driver.stop_context(self.context)?;
        refuse()?;
        if self.by_pasid {
            self.process.unbind(&machine.function, PASID, refuse)?;
        }
        for pair in &self.pairs {
            driver.destroy(CMD_DESTROY_QP, pair.sender.number())?;
            driver.destroy(CMD_DESTROY_QP, pair.receiver.number())?;
        }
        if let TargetRegion::OnDemand(umem) = &self.target {
            umem.end()?;
        }
        machine.destroy(&ProgramObjects {
            mr: self.local.key,
            cq: self.completions.number(),
            eq: self.events.number(),
            pd: self.pd,
            context: self.context.id,
        })?;
        self.process.unmap_everything()
    }
}

/// Registers the local buffers with pinned pages.
fn pin(
    machine: &LabMachine,
    process: &Process,
    pd: u32,
    bytes: u64,
) -> Result<(MemoryRegion, Vec<Buffer>), ModelError> {
    let (driver, size) = (&machine.driver, PageSize::Large);
    let page = |at: u64| {
        let leaf = process.fault_at(Iova(SOURCE.0 + at), true)?;
        driver.domain().map(leaf.gpa, size.bytes())
    };
    let pages = (0..bytes).step_by(index(size.bytes())).map(page).collect::<Result<Vec<_>, _>>()?;
    let (table, tables) = page_table(driver.memory(), driver.domain(), &pages, size)?;
    Ok((driver.register_pinned(pd, SOURCE, bytes, table)?, tables))
}

impl Connection {
    fn create(driver: &Driver, setup: QueuePairSetup, terms: Terms) -> Result<Self, ModelError> {
        let sender = driver.create_queue_pair(setup)?;
        let receiver = driver.create_queue_pair(setup)?;
        let pair = Self { sender, receiver, terms, psn: Psn::new(0), pending: 0, broken: false };
        pair.connect(driver)?;
        Ok(pair)
    }

    fn connect(&self, driver: &Driver) -> Result<(), ModelError> {
        let Terms { min_rnr_timer, wire } = self.terms;
        let (sender, receiver) = (self.sender.number(), self.receiver.number());
        for (from, to) in [(receiver, sender), (sender, receiver)] {
            match wire {
                Some(ack) => driver.connect_to(from, (&FAR_END, to), self.psn.get(), ack)?,
                None => driver.connect(from, to)?,
            }
        }
        driver.set_min_rnr_timer(receiver, min_rnr_timer)
    }

    /// Recovers from an error: resets both ends and connects them again. What is still on the wire has other packet numbers.
    pub(super) fn reconnect(&mut self, driver: &Driver) -> Result<(), ModelError> {
        self.psn = self.psn.after(PSN_STEP);
        driver.reset_queue_pair(&mut self.sender)?;
        driver.reset_queue_pair(&mut self.receiver)?;
        self.connect(driver)?;
        self.broken = false;
        Ok(())
    }
}

/// log2 of the smallest ring that holds `count` entries.
fn log2(count: u32) -> u8 {
    low_u8(count.max(2).next_power_of_two().trailing_zeros().into())
}
