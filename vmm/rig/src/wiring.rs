//! Puts the IOMMU and the NICs into a machine, and gives the NICs' workers their threads.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use crossbeam::channel::{Receiver, Sender, after, bounded, never, select};
use refault_bus::ats::{AtsEndpoint, TranslationAgent};
use refault_bus::clock::Clock;
use refault_bus::dma::DmaMemory;
use refault_bus::irq::MsiSink;
use refault_bus::mmio::MmioDevice;
use refault_bus::probe::{NoProbe, Probe};
use refault_bus::wire::Wire;
use refault_iommu::{Iommu, IommuConfig};
use refault_nic::{LinkLayer, Nic, NicConfig, Worker};
use refault_os::syscalls::{ThreadKind, confine};
use refault_pci::PciFunction;

use crate::cable::{CableOptions, Cables, Port};
use crate::clock::WallClock;
use crate::delays::{DelayedNic, DelayedSeams};
use refault_timing::Timing;

/// Most pieces of work between two looks at the stop signal.
const BURST: u32 = 64;

/// The configuration of a machine's devices, and what observes them.
pub struct DeviceOptions {
    /// The IOMMU.
    pub iommu: IommuConfig,
    /// The NIC.
    pub nic: NicConfig,
    /// More NICs, each with its own BDF and GUID.
    pub more_nics: Vec<NicConfig>,
    /// What happens between Ethernet ports: the first is joined to the second, the third to the fourth and so on.
    pub cables: CableOptions,
    /// Time for the NIC's timeouts and completion timestamps.
    pub clock: Arc<dyn Clock>,
    /// Observes every stage of every fault.
    pub probe: Arc<dyn Probe>,
    /// Minimum durations of the devices' steps; without it no delays are added.
    pub timing: Option<Timing>,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            iommu: IommuConfig::default(),
            nic: NicConfig::default(),
            more_nics: Vec::new(),
            cables: CableOptions::default(),
            clock: Arc::new(WallClock::new()),
            probe: Arc::new(NoProbe),
            timing: None,
        }
    }
}

/// The running devices of one machine. Dropping it ends the NICs' threads.
pub struct Wired {
    /// The IOMMU, for its counters.
    pub iommu: Arc<Iommu>,
    /// The first NIC, for its counters.
    pub nic: Arc<Nic>,
    /// The other NICs, for theirs.
    pub more_nics: Vec<Arc<Nic>>,
    /// The IOMMU's registers, as the guest reaches them.
    pub registers: Arc<dyn MmioDevice>,
    /// The NICs, as the guest reaches them.
    pub functions: Vec<Arc<dyn PciFunction>>,
    /// What joins Ethernet ports.
    pub cables: Cables,
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    /// Keeps the delayed endpoints alive: the IOMMU holds them by weak references.
    _delayed: Vec<DelayedNic>,
}

impl Drop for Wired {
    fn drop(&mut self) {
        self.cables.end();
        self.stop = None;
        for thread in self.threads.drain(..) {
            // A worker that panicked has already reported it on stderr.
            let _ = thread.join();
        }
    }
}

/// Builds the devices of a machine that has this memory and interrupt controller, and starts the NICs' workers.
///
/// # Errors
/// A thread cannot be started.
pub fn devices(
    ram: Arc<dyn DmaMemory>,
    msi: Arc<dyn MsiSink>,
    mut options: DeviceOptions,
) -> anyhow::Result<Wired> {
    let clock = options.clock.clone();
    let cables = std::mem::take(&mut options.cables);
    let links: Vec<_> = [&options.nic].into_iter().chain(&options.more_nics).map(|nic| nic.link).collect();
    let connected = match options.timing.clone() {
        None => connect(ram, msi, options),
        Some(timing) => connect_with_delays(ram, options, DelayedSeams::new(timing, msi)?)?,
    };
    let cables = Cables::join(ports(&connected.nics, &links), cables, &clock)?;
    let (stop, stopped) = bounded::<()>(0);
    let mut threads = Vec::new();
    for nic in &connected.nics {
        for index in 0..nic.worker_count() {
            let (worker, clock, stopped) = (nic.worker(index), clock.clone(), stopped.clone());
            let thread = thread::Builder::new()
                .name(format!("nic-{index}"))
                .spawn(move || work(worker, &*clock, &stopped))
                .context("cannot start a thread for the NIC")?;
            threads.push(thread);
        }
    }
    let Connected { iommu, nics, registers, functions, delayed } = connected;
    let mut nics = nics.into_iter();
    let nic = nics.next().context("a machine without a NIC")?;
    Ok(Wired {
        iommu,
        nic,
        more_nics: nics.collect(),
        registers,
        functions,
        cables,
        stop: Some(stop),
        threads,
        _delayed: delayed,
    })
}

/// The Ethernet ports among the NICs.
fn ports(nics: &[Arc<Nic>], links: &[LinkLayer]) -> Vec<Port> {
    let port = |(index, nic): (usize, &Arc<Nic>)| {
        let plugged = nic.clone();
        let plug: Box<dyn FnOnce(Arc<dyn Wire>)> = Box::new(move |wire| plugged.plug(wire));
        Port { name: format!("nic{index}"), port: nic.clone(), plug }
    };
    let all = nics.iter().enumerate().zip(links);
    all.filter(|(_, link)| matches!(link, LinkLayer::Ethernet { .. })).map(|(nic, _)| port(nic)).collect()
}

/// The devices, connected, without threads.
struct Connected {
    iommu: Arc<Iommu>,
    nics: Vec<Arc<Nic>>,
    /// The IOMMU's registers, and the NICs, as the guest reaches them.
    registers: Arc<dyn MmioDevice>,
    functions: Vec<Arc<dyn PciFunction>>,
    delayed: Vec<DelayedNic>,
}

fn connect(ram: Arc<dyn DmaMemory>, msi: Arc<dyn MsiSink>, options: DeviceOptions) -> Connected {
    let DeviceOptions { iommu, nic, more_nics, clock, probe, .. } = options;
    let iommu = Arc::new(Iommu::new(iommu, ram.clone(), msi.clone(), probe.clone()));
    let agent: Arc<dyn TranslationAgent> = iommu.clone();
    let plugged = |config| {
        let nic = Nic::new(config, ram.clone(), agent.clone(), msi.clone(), clock.clone(), probe.clone());
        let endpoint: Arc<dyn AtsEndpoint> = nic.clone();
        iommu.attach(nic.bdf(), Arc::downgrade(&endpoint) as Weak<dyn AtsEndpoint>);
        nic
    };
    let nics: Vec<_> = [nic].into_iter().chain(more_nics).map(plugged).collect();
    let functions = nics.iter().map(|nic| nic.clone() as Arc<dyn PciFunction>).collect();
    Connected { registers: iommu.clone(), iommu, nics, functions, delayed: Vec::new() }
}

/// The same devices, with delays at every seam.
fn connect_with_delays(
    ram: Arc<dyn DmaMemory>,
    options: DeviceOptions,
    seams: DelayedSeams,
) -> anyhow::Result<Connected> {
    let DeviceOptions { iommu, nic, more_nics, clock, probe, .. } = options;
    let iommu = Arc::new(Iommu::new(iommu, ram.clone(), seams.interrupts(), probe.clone()));
    let registers = seams.registers(iommu.clone());
    let mut connected =
        Connected { iommu, nics: Vec::new(), registers, functions: Vec::new(), delayed: Vec::new() };
    for config in [nic].into_iter().chain(more_nics) {
        let root = seams.root(connected.iommu.clone())?;
        let memory = root.memory(ram.clone());
        let nic = Nic::new(config, memory, root.agent(), seams.interrupts(), clock.clone(), probe.clone());
        let delayed = root.nic(nic.clone(), nic.clone())?;
        connected.iommu.attach(nic.bdf(), delayed.endpoint());
        connected.functions.push(delayed.function.clone());
        connected.nics.push(nic);
        connected.delayed.push(delayed);
    }
    Ok(connected)
}

/// A worker's thread: sleeps until there is work, a deadline, or the stop signal. Under a steady stream of work it
/// still looks at the stop signal after every [`BURST`]; deadlines come before each piece of work.
fn work(mut worker: Worker, clock: &dyn Clock, stopped: &Receiver<()>) {
    confine(if worker.is_for_storage() { ThreadKind::Storage } else { ThreadKind::Device });
    loop {
        (0..BURST).take_while(|_| worker.poll()).for_each(drop);
        worker.expire();
        let timeout = worker.next_deadline_ns().map(|at| at.saturating_sub(clock.now_ns()));
        let due = timeout.map_or_else(never, |ns| after(Duration::from_nanos(ns)));
        select! {
            recv(worker.receiver()) -> work => match work {
                Ok(work) => worker.process(work),
                Err(_) => return,
            },
            recv(due) -> _ => {},
            recv(stopped) -> _ => return,
        }
    }
}
