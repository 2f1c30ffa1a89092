//! Initialisation and reset of the device.

use std::sync::Arc;

use refault_abi::command::{CMD_QUERY_DEVICE, DeviceCaps};
use refault_abi::regs::{
    ABI_VERSION, CONTROL_ENABLE, CONTROL_RESET, MAGIC_VALUE, REG_CMD0_BASE, REG_CMD0_DOORBELL, REG_CMD0_LOG,
    REG_CMD1_BASE, REG_CMD1_DOORBELL, REG_CMD1_LOG, REG_CONTROL, REG_MAGIC, REG_STATUS, REG_VERSION,
    STATUS_READY,
};

use crate::nic::{Buffer, CommandLane, Config, DmaDomain};
use crate::registers::RegisterWindow;
use crate::{GuestMemory, ModelError, Pause};

/// log2 of the number of slots of each command lane.
const LOG_SLOTS: u32 = 4;

/// The driver's access to the function.
#[derive(Clone)]
pub struct FunctionAccess {
    /// Config space of the function.
    pub config: Config,
    /// Index and window of each BAR.
    pub bars: Vec<(u8, RegisterWindow)>,
}

impl FunctionAccess {
    /// The window of BAR `index`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Function`] without such a BAR.
    pub fn bar(&self, index: u8) -> Result<RegisterWindow, ModelError> {
        let found = self.bars.iter().find(|(bar, _)| *bar == index);
        found.map(|(_, registers)| registers.clone()).ok_or(ModelError::Function("that BAR"))
    }
}

/// Arguments of [`Driver::start`].
#[derive(Clone)]
pub struct DriverSetup {
    /// The function, with memory decoding, bus mastering and translation services enabled.
    pub function: FunctionAccess,
    /// Memory to allocate rings from.
    pub memory: Arc<GuestMemory>,
    /// Domain to map rings in.
    pub domain: Arc<dyn DmaDomain>,
    /// How to wait for the device.
    pub pause: Pause,
    /// Number of MSI-X vectors to use, and the interrupt vector of the first.
    pub vectors: (u16, u8),
}

/// The driver of an initialised device.
pub struct Driver {
    setup: DriverSetup,
    bar0: RegisterWindow,
    bar2: RegisterWindow,
    lanes: [CommandLane; 2],
}

/// Registers of each lane: address of the ring, log2 of its slots, doorbell.
const LANES: [(u64, u64, u64); 2] =
    [(REG_CMD0_BASE, REG_CMD0_LOG, REG_CMD0_DOORBELL), (REG_CMD1_BASE, REG_CMD1_LOG, REG_CMD1_DOORBELL)];

impl Driver {
    /// Identifies the device, resets it, sets up MSI-X and both command lanes, and enables it.
    ///
    /// # Errors
    ///
    /// [`ModelError::Function`] if it is not a supported NIC; [`ModelError::Stuck`] if it does not become ready;
    /// [`ModelError::OutOfMemory`].
    pub fn start(setup: DriverSetup) -> Result<Self, ModelError> {
        let (bar0, bar2) = (setup.function.bar(0)?, setup.function.bar(2)?);
        if bar0.read32(REG_MAGIC) != MAGIC_VALUE {
            return Err(ModelError::Function("the NIC's registers"));
        }
        if bar0.read32(REG_VERSION) != ABI_VERSION {
            return Err(ModelError::Function("this driver's ABI version"));
        }
        reset(&bar0, &setup.pause)?;
        let (vectors, first) = setup.vectors;
        setup.function.config.enable_msix(vectors, first, |bar| setup.function.bar(bar))?;
        let lanes = [lane(&setup, &bar0, LANES[0])?, lane(&setup, &bar0, LANES[1])?];
        bar0.write32(REG_CONTROL, CONTROL_ENABLE);
        setup.pause.until("the device to be ready", || {
            Ok((bar0.read32(REG_STATUS) & STATUS_READY != 0).then_some(()))
        })?;
        Ok(Self { setup, bar0, bar2, lanes })
    }

    /// The arguments of [`Self::start`].
    pub fn setup(&self) -> &DriverSetup {
        &self.setup
    }

    /// Queries the limits and features of the device.
    ///
    /// # Errors
    ///
    /// As [`CommandLane::execute`].
    pub fn capabilities(&self) -> Result<DeviceCaps, ModelError> {
        self.lane0().execute(CMD_QUERY_DEVICE, &[0u8; 0])
    }

    /// Resets the device through its control register, which destroys all of its objects.
    ///
    /// # Errors
    ///
    /// [`ModelError::Stuck`] if the reset does not complete.
    pub fn reset(&self) -> Result<(), ModelError> {
        reset(&self.bar0, &self.setup.pause)
    }

    /// The lane for commands that create, modify and destroy objects.
    pub fn lane0(&self) -> &CommandLane {
        &self.lanes[0]
    }

    /// The lane for urgent commands, such as invalidations and answers to page faults.
    pub fn lane1(&self) -> &CommandLane {
        &self.lanes[1]
    }

    /// BAR 0, the device's registers.
    pub fn bar0(&self) -> &RegisterWindow {
        &self.bar0
    }

    /// BAR 2, the doorbell pages.
    pub fn bar2(&self) -> &RegisterWindow {
        &self.bar2
    }

    /// Config space of the function.
    pub fn config(&self) -> &Config {
        &self.setup.function.config
    }

    /// The memory that rings are allocated from.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.setup.memory
    }

    /// The domain that rings are mapped in.
    pub fn domain(&self) -> &Arc<dyn DmaDomain> {
        &self.setup.domain
    }

    /// How the driver waits for the device.
    pub fn pause(&self) -> &Pause {
        &self.setup.pause
    }
}

fn reset(bar0: &RegisterWindow, pause: &Pause) -> Result<(), ModelError> {
    bar0.write32(REG_CONTROL, CONTROL_RESET);
    pause.until("the device's reset", || Ok((bar0.read32(REG_CONTROL) & CONTROL_RESET == 0).then_some(())))
}

fn lane(
    setup: &DriverSetup,
    bar0: &RegisterWindow,
    registers: (u64, u64, u64),
) -> Result<CommandLane, ModelError> {
    let (base, log, doorbell) = registers;
    let ring = Buffer::new(&setup.memory, &setup.domain, CommandLane::ring_bytes(LOG_SLOTS))?;
    let lane = CommandLane::new(bar0.clone(), doorbell, ring, LOG_SLOTS, setup.pause.clone());
    bar0.write64(base, lane.base());
    bar0.write32(log, LOG_SLOTS);
    Ok(lane)
}
