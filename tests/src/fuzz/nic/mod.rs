//! Targets of the NIC: a whole machine, in which the NIC's memory is watched.

mod body;
pub mod commands;
mod frames;
pub mod on_demand;
pub mod port;
mod process;
pub mod queues;
pub mod registers;
mod request;

use std::sync::{Arc, OnceLock};

use refault_abi::codes::WC_SUCCESS;
use refault_bus::clock::{Clock, ManualClock};
use refault_bus::dma::DmaMemory;
use refault_bus::probe::NoProbe;
use refault_bus::{Iova, Pasid};
use refault_iommu::IommuConfig;
use refault_model::Process;
use refault_model::memory::FRAME;
use refault_model::paging::{PageSize, Rights};
use refault_nic::NicConfig;
use refault_rig::machine::platform::Platform;
use refault_rig::machine::{ModelMachine, ModelMachineSetup, OwnSpace, Seams, Workers};

use super::watch::{Access, WatchedMemory};
use crate::session::Session;

/// Bytes of guest memory.
const MEMORY: u64 = 16 << 20;
/// Memory that the process may read and write, present at the start, and how many pages.
const SOURCE: Iova = Iova(0x7f00_0000_0000);
const SOURCE_PAGES: u64 = 4;
/// Memory that it may read and write, absent at the start.
const TARGET: Iova = Iova(0x7f80_0000_0000);
const TARGET_PAGES: u64 = 16;
/// Memory that it may only read.
const READ_ONLY: Iova = Iova(0x7fc0_0000_0000);
const READ_ONLY_PAGES: u64 = 4;

/// Most pieces of work that one operation of an input may cause: 64 requests in each of four rings, each in several turns.
const WORK_MAX: usize = 20_000;
/// Most accesses to memory in one piece of work: a turn copies 64 KiB, in runs of a page or less.
const ACCESSES_MAX: usize = 4_000;
/// How often a driver polls before it gives up.
const POLLS: u64 = 200;

/// A machine whose NIC has two workers, which the target polls.
struct World {
    machine: ModelMachine,
    watched: Arc<WatchedMemory>,
    clock: Arc<ManualClock>,
    config: NicConfig,
}

/// Watches the NIC's memory.
#[derive(Default)]
struct Watch(OnceLock<Arc<WatchedMemory>>);

impl Seams for Watch {
    fn memory(&self, memory: Arc<dyn DmaMemory>) -> Arc<dyn DmaMemory> {
        self.0.get_or_init(|| WatchedMemory::new(memory)).clone()
    }
}

impl World {
    fn new(own_space: OwnSpace) -> Self {
        Self::with(own_space, config())
    }

    /// The machine with another NIC.
    fn with(own_space: OwnSpace, config: NicConfig) -> Self {
        let clock = Arc::new(ManualClock::default());
        let platform = Platform::new(MEMORY, IommuConfig::default(), Arc::new(NoProbe)).expect("memory");
        let watch = Watch::default();
        let machine = ModelMachine::new(platform, setup(own_space, &clock, &config), &watch)
            .expect("the machine comes up");
        let watched = watch.0.into_inner().expect("the NIC has memory");
        watched.take();
        Self { machine, watched, clock, config }
    }

    /// A process with its areas, and two queue pairs that are connected to each other.
    fn open(&self, pasid: u32) -> Session {
        let (process, pasid) = self.process(pasid);
        Session::open(&self.machine.driver, process, pasid)
    }

    /// A process with its areas.
    fn process(&self, pasid: u32) -> (Arc<Process>, Pasid) {
        let process = Process::new(self.machine.memory.clone()).expect("a process");
        let pasid = Pasid::new(pasid).expect("a PASID");
        process.bind(&self.machine.function, pasid).expect("a free PASID");
        process.map_area(SOURCE, SOURCE_PAGES * FRAME, Rights::Write, PageSize::Small);
        process.map_area(TARGET, TARGET_PAGES * FRAME, Rights::Write, PageSize::Small);
        process.map_area(READ_ONLY, READ_ONLY_PAGES * FRAME, Rights::Read, PageSize::Small);
        process.populate(SOURCE, SOURCE_PAGES * FRAME).expect("memory");
        (process, pasid)
    }

    /// Lets the NIC do all it can, in bounded steps, and shows each step's accesses to `check`.
    fn rest(&self, mut check: impl FnMut(&[Access])) {
        for _ in 0..WORK_MAX {
            let worked = self.machine.workers.step();
            let accesses = self.watched.take();
            assert!(accesses.len() <= ACCESSES_MAX, "{} accesses in one piece of work", accesses.len());
            check(&accesses);
            if !worked {
                return;
            }
        }
        panic!("the NIC does not come to rest");
    }

    /// Advances the clock to the next deadline; `false` if there is none.
    fn pass_time(&self) -> bool {
        let Some(next) = self.machine.workers.next_deadline_ns() else { return false };
        let now = self.clock.now_ns();
        self.clock.advance(next.saturating_sub(now));
        self.machine.workers.expire();
        true
    }

    /// After a reset the next kernel finds everything working.
    fn recovers(self) {
        let next = self.rebooted();
        let mut session = next.open(1);
        session.process.populate(TARGET, FRAME).expect("memory");
        works(&next, &mut session);
    }

    /// The machine with the next kernel.
    fn rebooted(self) -> Self {
        let Self { machine, watched, clock, config } = self;
        let next = setup(OwnSpace::PassThrough, &clock, &config);
        let machine = machine.reboot(&next).expect("the machine comes up again");
        Self { machine, watched, clock, config }
    }
}

/// A write of the session arrives.
fn works(world: &World, session: &mut Session) {
    session.process.write(SOURCE, b"refault").expect("memory");
    session.drain();
    session.write(7, SOURCE, TARGET, 7);
    world.rest(|_| {});
    let done = session.drain();
    assert_eq!(done.len(), 1);
    assert_eq!((done[0].wr_id, done[0].status), (7, WC_SUCCESS));
    let mut bytes = [0; 7];
    session.process.read(TARGET, &mut bytes).expect("memory");
    assert_eq!(&bytes, b"refault");
}

/// Small, so that entries are evicted and numbers run out.
fn config() -> NicConfig {
    NicConfig {
        workers: 2,
        atc_entries: 64,
        page_request_credits: 8,
        page_fault_credits: 4,
        page_retry_limit: 8,
        fault_window: 2,
        sample_every: 2,
        max_qp: 16,
        max_cq: 16,
        max_srq: 16,
        max_mr: 16,
        max_pd: 16,
        max_context: 8,
        ..NicConfig::default()
    }
}

fn setup(own_space: OwnSpace, clock: &Arc<ManualClock>, config: &NicConfig) -> ModelMachineSetup {
    ModelMachineSetup {
        own_space,
        pause: |workers: &Workers| workers.pause(POLLS),
        ..ModelMachineSetup::new(config.clone(), clock.clone(), Arc::new(NoProbe))
    }
}
