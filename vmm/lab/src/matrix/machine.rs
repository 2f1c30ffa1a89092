//! The machine of a cell: NIC, IOMMU and model guest on one thread, on a clock that advances when a program waits.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use refault_bus::Pasid;
use refault_bus::clock::{Clock, ManualClock};
use refault_bus::probe::NoProbe;
use refault_iommu::IommuConfig;
use refault_model::vtd::Answer;
use refault_model::{ModelError, Process};
use refault_nic::NicConfig;
use refault_rig::machine::platform::{PAGE_REQUEST_VECTOR, Platform};
use refault_rig::machine::{Direct, ModelMachineSetup, POLLS_MAX, Processes};

use crate::machine::{self, PAGE_FAULT_VECTOR};

pub(super) use refault_rig::machine::OwnSpace;

/// Memory of the machine; [`PERSISTENT`] of it are the filesystem's.
const MEMORY: u64 = 16 << 20;
/// Bytes of the filesystem's persistent memory.
const PERSISTENT: u64 = 1 << 20;
/// MSI-X vectors of the NIC: for its queues, and for page faults.
const NIC_VECTORS: u16 = 2;
/// log2 of the page faults that can be outstanding.
const LOG_PAGE_FAULTS: u8 = 6;

/// A machine, brought up in Linux's order.
pub(super) struct CellMachine {
    machine: machine::LabMachine,
    /// Guest-physical range of the filesystem's memory.
    pub(super) persistent: Range<u64>,
    pub(super) clock: Arc<ManualClock>,
    processes: Processes,
    served: AtomicU64,
}

impl Deref for CellMachine {
    type Target = machine::LabMachine;

    fn deref(&self) -> &machine::LabMachine {
        &self.machine
    }
}

impl CellMachine {
    pub(super) fn new(own_space: OwnSpace) -> anyhow::Result<Self> {
        let (probe, clock) = (Arc::new(NoProbe), Arc::new(ManualClock::default()));
        let platform = Platform::new(MEMORY, IommuConfig::default(), probe.clone())?;
        let persistent = platform.memory.allocate(PERSISTENT, 12)?;
        let persistent = persistent.0..persistent.0 + PERSISTENT;
        let nic = NicConfig { workers: 1, vectors: NIC_VECTORS, ..NicConfig::default() };
        let setup = ModelMachineSetup {
            own_space,
            vectors: NIC_VECTORS,
            ..ModelMachineSetup::new(nic, clock.clone(), probe)
        };
        let machine = machine::LabMachine::new(platform, setup, &Direct, LOG_PAGE_FAULTS)?;
        let (processes, served) = (Processes::default(), AtomicU64::new(0));
        Ok(Self { machine, persistent, clock, processes, served })
    }

    /// Directs page requests of `pasid` to a process.
    pub(super) fn attach_process(&self, pasid: Pasid, process: Arc<Process>) {
        self.processes.insert(pasid, process);
    }

    /// Refuses page requests of `pasid` from now on.
    pub(super) fn detach_process(&self, pasid: Pasid) {
        self.processes.remove(pasid);
    }

    /// Lets the NIC do one piece of work, without handling faults; returns whether there was any.
    pub(super) fn step(&self) -> bool {
        self.workers.step()
    }

    /// Runs the NIC and the guest's fault handlers until both are idle. No time passes.
    pub(super) fn run_until_idle(&self) -> anyhow::Result<()> {
        for _ in 0..POLLS_MAX {
            let (worked, served) = (self.step(), self.serve_faults()?);
            if !worked && served == 0 {
                return Ok(());
            }
        }
        anyhow::bail!("the machine does not become idle: this is a bug in refault")
    }

    /// Runs both fault handlers once: the kernel's page request thread, and the NIC driver's handler.
    pub(super) fn serve_faults(&self) -> Result<usize, ModelError> {
        let mut served = 0;
        if self.interrupts.take(PAGE_REQUEST_VECTOR) > 0 {
            let answer = |request: &_| Answer::Now(self.processes.fault(request));
            served += self.unit.service_page_requests(answer)?;
        }
        if self.interrupts.take(PAGE_FAULT_VECTOR) > 0 {
            served += self.faults.service()?;
        }
        self.served.fetch_add(served as u64, Ordering::Relaxed);
        Ok(served)
    }

    /// Device faults handled so far.
    pub(super) fn faults_served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// The NIC's next deadline, if it has one.
    pub(super) fn next_deadline_ns(&self) -> Option<u64> {
        self.workers.next_deadline_ns()
    }

    /// Advances the clock and expires what is due.
    pub(super) fn pass_time_to(&self, ns: u64) {
        self.clock.advance(ns.saturating_sub(self.clock.now_ns()));
        self.workers.expire();
    }
}
