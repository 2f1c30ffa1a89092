//! The machine: builds its parts, connects them, and runs.

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

use self::debugging::{DebugSetup, Debuggee};
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
use crate::serial::{PORT_ADDRESSES, SERIAL_SIZE, SerialPort};

/// Writers for the output of the guest's serial ports ttyS0, ttyS1, ttyS2. A writer that blocks stops only the vCPU that
/// writes.
pub struct Consoles {
    /// One writer per port.
    pub outputs: [Box<dyn Write + Send>; 3],
}

/// What a machine offers to its devices.
pub struct MachineParts {
    /// All guest memory, as devices and IOMMU access it.
    pub ram: Arc<dyn DmaMemory>,
    /// Sends interrupts to the guest.
    pub msi: Arc<dyn MsiSink>,
}

/// The devices of a machine.
#[derive(Default)]
pub struct Devices {
    /// The registers of the IOMMU, if there is one; it covers all functions.
    pub iommu: Option<Arc<dyn MmioDevice>>,
    /// PCI functions, each function 0 of a device on bus 0.
    pub functions: Vec<Arc<dyn PciFunction>>,
}

/// A machine, ready to run.
pub struct KvmMachine {
    cpus: Arc<Cpus>,
    memory: Arc<GuestMemoryMmap>,
    ram: Vec<Range<u64>>,
    bus: Arc<BusMap>,
    handle: MachineHandle,
    debug: Option<DebugSetup>,
}

/// Controls a machine from any thread, before, while and after it runs.
#[derive(Clone)]
pub struct MachineHandle {
    exit: Arc<Exit>,
    serial: [Arc<dyn SerialInput>; 3],
}

/// The host's end of a serial port.
pub trait SerialInput: Send + Sync {
    /// Queues bytes for the guest to read.
    fn inject(&self, bytes: &[u8]);
}

impl SerialInput for SerialPort {
    fn inject(&self, bytes: &[u8]) {
        Self::inject(self, bytes);
    }
}

impl MachineHandle {
    /// A handle for a machine that ends by `exit` and reads from `serial`.
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

    /// Queues `bytes` for the guest to read from serial port `port` (0 to 2). Blocks while the queue is full. Does nothing
    /// if there is no such port.
    pub fn inject(&self, port: usize, bytes: &[u8]) {
        if let Some(port) = self.serial.get(port) {
            port.inject(bytes);
        }
    }

    /// Why the machine ended, once it has.
    pub fn exit_reason(&self) -> Option<ExitReason> {
        self.exit.reason()
    }
}

impl KvmMachine {
    /// Builds a machine. `devices` is called once, with the parts from which to build the devices.
    ///
    /// # Errors
    /// The configuration is invalid, KVM or a file cannot be used, or the devices cannot be built.
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

    /// Adds debugging to the machine.
    ///
    /// # Errors
    /// gdb's port is in use.
    pub fn with_debug(mut self, debug: &Debug) -> anyhow::Result<Self> {
        let exit = self.handle.exit.clone();
        let (cpus, memory, ram) = (self.cpus.clone(), self.memory.clone(), self.ram.clone());
        let writing = Mutex::default();
        self.debug = Some(DebugSetup::new(Debuggee { cpus, memory, ram, exit, writing }, debug)?);
        Ok(self)
    }

    /// A handle for this machine.
    pub fn handle(&self) -> MachineHandle {
        self.handle.clone()
    }

    /// Runs until the guest or the host ends it. The control loop runs on this thread.
    ///
    /// # Errors
    /// Threads cannot be started, debugging cannot be set up, or the host cannot wait for events.
    pub fn run(self) -> anyhow::Result<ExitReason> {
        let exit = &self.handle.exit;
        let debugging = self.debug.map(DebugSetup::start).transpose()?;
        let threads = Threads::start(&self.cpus, &self.bus, exit).context("cannot start vCPU threads")?;
        let reason = exit.wait();
        threads.stop();
        let reason = reason.context("the control loop failed")?;
        if let Some(debugging) = debugging {
            debugging.end(&reason);
        }
        info!(?reason, "machine ended");
        Ok(reason)
    }
}

/// Adds IOMMU and PCI to the address map.
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

/// Adds serial ports, sleep, keyboard reset and NMI reasons to the address map.
fn attach_control(
    bus: &BusMap,
    vm: &Vm,
    consoles: Consoles,
    exit: &Arc<Exit>,
) -> anyhow::Result<[Arc<dyn SerialInput>; 3]> {
    let mut free = true;
    let mut ports: Vec<Arc<dyn SerialInput>> = Vec::with_capacity(PORT_ADDRESSES.len());
    for (output, place) in consoles.outputs.into_iter().zip(PORT_ADDRESSES) {
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
    ports.try_into().map_err(|_| anyhow::anyhow!("expected three serial ports"))
}
