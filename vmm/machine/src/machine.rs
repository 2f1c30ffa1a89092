//! The machine: everything is built here, handed its seams, and run.

mod debugging;

use std::io::Write;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use refault_bus::dma::{DmaMemory, GuestRam};
use refault_bus::irq::MsiSink;
use refault_bus::mmio::MmioDevice;
use refault_pci::PciFunction;
use tracing::info;
use vm_memory::GuestMemoryMmap;

use self::debugging::{Debuggee, Wanted};
use crate::acpi::{self, Description};
use crate::boot;
use crate::bus_map::BusMap;
use crate::config::{ExitReason, MachineConfig};
use crate::control::{
    Exit, KEYBOARD_PORT, KeyboardController, NMI_REASON_PORT, NmiReason, ResetControl, SLEEP_PORT,
    SleepControl,
};
use crate::debug::Debug;
use crate::kvm::run::Threads;
use crate::kvm::{self, Cpus, Vcpu, Vm};
use crate::memory::{self, layout};
use crate::pci_host::{CONFIG_PORT, ConfigPorts, Ecam, PciHost};
use crate::serial::{PLACES, SERIAL_SIZE, SerialPort};

/// Where the guest's serial ports write to: ttyS0, ttyS1, ttyS2. A writer that blocks stops the vCPU that
/// writes, and nothing else.
pub struct Consoles {
    /// One writer a port.
    pub outputs: [Box<dyn Write + Send>; 3],
}

/// What a machine offers to its devices.
pub struct MachineParts {
    /// All of guest memory, as devices and IOMMU reach it.
    pub ram: Arc<dyn DmaMemory>,
    /// Interrupts to the guest.
    pub msi: Arc<dyn MsiSink>,
}

/// The devices of a machine.
#[derive(Default)]
pub struct Devices {
    /// The registers of the IOMMU, if there is one; it has all functions.
    pub iommu: Option<Arc<dyn MmioDevice>>,
    /// PCI functions, each function 0 of a device on bus 0.
    pub functions: Vec<Arc<dyn PciFunction>>,
}

/// A machine, ready to run.
pub struct Machine {
    cpus: Arc<Cpus>,
    memory: Arc<GuestMemoryMmap>,
    ram: Vec<Range<u64>>,
    bus: Arc<BusMap>,
    handle: MachineHandle,
    debug: Option<Wanted>,
}

/// A hand on a machine from any thread, before, while and after it runs.
#[derive(Clone)]
pub struct MachineHandle {
    exit: Arc<Exit>,
    serial: [Arc<dyn SerialInput>; 3],
}

/// The host's end of a serial port.
pub trait SerialInput: Send + Sync {
    /// Gives the guest bytes to read.
    fn inject(&self, bytes: &[u8]);
}

impl SerialInput for SerialPort {
    fn inject(&self, bytes: &[u8]) {
        Self::inject(self, bytes);
    }
}

impl MachineHandle {
    /// A hand on a machine that ends by `exit` and reads from `serial`.
    pub fn new(exit: Arc<Exit>, serial: [Arc<dyn SerialInput>; 3]) -> Self {
        Self { exit, serial }
    }

    /// Ends the machine with [`ExitReason::Stopped`], unless it has ended already.
    pub fn stop(&self) {
        self.end(ExitReason::Stopped);
    }

    /// Ends the machine for `reason`, unless it has ended already.
    pub fn end(&self, reason: ExitReason) {
        self.exit.request(reason);
    }

    /// Gives the guest `bytes` to read from serial port `port` (0 to 2), as fast as it takes them. What it does not take
    /// waits, and so does the caller if that is much. A port that is not there takes nothing.
    pub fn inject(&self, port: usize, bytes: &[u8]) {
        if let Some(port) = self.serial.get(port) {
            port.inject(bytes);
        }
    }

    /// How the machine ended, once it has.
    pub fn exit_reason(&self) -> Option<ExitReason> {
        self.exit.reason()
    }
}

impl Machine {
    /// Builds a machine. `devices` is called once, with what the devices are to be built from.
    pub fn new(
        config: MachineConfig,
        consoles: Consoles,
        devices: impl FnOnce(&MachineParts) -> anyhow::Result<Devices>,
    ) -> anyhow::Result<Self> {
        config.validate()?;
        let mut vm = Vm::new()?;
        vm.check_cpus(config.cpus)?;
        let layout = layout::Layout::new(&config, kvm::cpuid::physical_bits(vm.supported_cpuid()))?;
        let memory = memory::map(&config, &layout)?;
        vm.map(memory.clone())?;
        let vm = Arc::new(vm);

        let ram: Arc<dyn DmaMemory> = Arc::new(GuestRam::new(memory.clone()));
        let parts = MachineParts { ram, msi: vm.clone() };
        let devices = devices(&parts)?;
        let iommu = devices.iommu.is_some();
        let bus = Arc::new(BusMap::default());
        let exit = Arc::new(Exit::new().context("cannot create an event")?);
        attach_devices(&bus, devices, &layout, &exit)?;
        let serial = attach_control(&bus, &vm, consoles, &exit)?;
        let handle = MachineHandle::new(exit, serial);

        let description = Description { cpus: config.cpus, layout: &layout, iommu };
        let rsdp = acpi::write(&memory, description)?;
        let entry = boot::load(&memory, &config, &layout, rsdp)?;
        kvm::write_boot_tables(&memory).context("cannot write boot tables")?;
        let vcpus: Result<Vec<_>, _> = (0..config.cpus)
            .map(|index| Vcpu::new(&vm, config.cpu_model, config.cpus, index, entry))
            .collect();
        let cpus = Arc::new(Cpus::new(vcpus?));
        Ok(Self { cpus, memory, ram: layout.ram, bus, handle, debug: None })
    }

    /// The same machine with ways to debug it.
    ///
    /// # Errors
    /// gdb's port is taken.
    pub fn with_debug(mut self, debug: &Debug) -> anyhow::Result<Self> {
        let exit = self.handle.exit.clone();
        let (cpus, memory, ram) = (self.cpus.clone(), self.memory.clone(), self.ram.clone());
        let writing = Mutex::default();
        self.debug = Some(Wanted::new(Debuggee { cpus, memory, ram, exit, writing }, debug)?);
        Ok(self)
    }

    /// A hand on this machine.
    pub fn handle(&self) -> MachineHandle {
        self.handle.clone()
    }

    /// Runs until the guest or somebody on the host ends it. Serves the control plane on this thread.
    pub fn run(self) -> anyhow::Result<ExitReason> {
        let exit = &self.handle.exit;
        let debugging = self.debug.map(Wanted::start).transpose()?;
        let threads = Threads::start(&self.cpus, &self.bus, exit).context("cannot start vCPU threads")?;
        let reason = exit.wait();
        threads.stop();
        let reason = reason.context("the control plane failed")?;
        if let Some(debugging) = debugging {
            debugging.end(&reason);
        }
        info!(?reason, "machine ended");
        Ok(reason)
    }
}

/// Puts IOMMU and PCI into the address map.
fn attach_devices(
    bus: &Arc<BusMap>,
    devices: Devices,
    layout: &layout::Layout,
    exit: &Arc<Exit>,
) -> anyhow::Result<()> {
    let mut free = true;
    if let Some(iommu) = devices.iommu {
        free &= bus.insert_memory(layout::IOMMU, iommu);
    }
    let host = Arc::new(PciHost::new(devices.functions, layout, bus)?);
    let ports = ConfigPorts::new(host.clone(), ResetControl::new(exit.clone()));
    free &= bus.insert_memory(Ecam::RANGE, Arc::new(Ecam(host)));
    free &= bus.insert_ports(CONFIG_PORT..CONFIG_PORT + 8, Arc::new(ports));
    anyhow::ensure!(free, "the machine's devices overlap");
    Ok(())
}

/// Puts serial ports, sleep, keyboard reset and the reasons of NMIs into the address map.
fn attach_control(
    bus: &BusMap,
    vm: &Vm,
    consoles: Consoles,
    exit: &Arc<Exit>,
) -> anyhow::Result<[Arc<dyn SerialInput>; 3]> {
    let mut free = true;
    let mut ports: Vec<Arc<dyn SerialInput>> = Vec::with_capacity(PLACES.len());
    for (output, place) in consoles.outputs.into_iter().zip(PLACES) {
        let (port, line) = SerialPort::new(output).context("cannot create a serial port")?;
        vm.attach_irq(&line, place.irq)?;
        let port = Arc::new(port);
        free &= bus.insert_ports(place.base..place.base + SERIAL_SIZE, port.clone());
        ports.push(port);
    }
    let sleep = Arc::new(SleepControl(exit.clone()));
    free &= bus.insert_ports(SLEEP_PORT..SLEEP_PORT + 2, sleep);
    let keyboard = Arc::new(KeyboardController(exit.clone()));
    free &= bus.insert_ports(KEYBOARD_PORT..KEYBOARD_PORT + 1, keyboard);
    free &= bus.insert_ports(NMI_REASON_PORT..NMI_REASON_PORT + 1, Arc::new(NmiReason));
    anyhow::ensure!(free, "the machine's ports overlap");
    ports.try_into().map_err(|_| anyhow::anyhow!("three serial ports wanted"))
}
