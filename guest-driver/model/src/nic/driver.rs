//! Finding the device, setting it up and tearing it down.

use std::sync::Arc;

use refault_abi::command::{CMD_QUERY_DEVICE, DeviceCaps};
use refault_abi::regs::*;

use crate::nic::{Buffer, CommandLane, Config, DmaDomain};
use crate::registers::RegisterWindow;
use crate::{GuestMemory, ModelError, Pause};

/// log2 of the slots of both command lanes.
const LOG_SLOTS: u32 = 4;

/// How the driver reaches the function.
#[derive(Clone)]
pub struct FunctionAccess {
    /// Its config space.
    pub config: Config,
    /// The windows of its BARs, by index.
    pub bars: Vec<(u8, RegisterWindow)>,
}

impl FunctionAccess {
    /// The window of one BAR.
    pub fn bar(&self, index: u8) -> Result<RegisterWindow, ModelError> {
        let found = self.bars.iter().find(|(bar, _)| *bar == index);
        found.map(|(_, registers)| registers.clone()).ok_or(ModelError::Function("that BAR"))
    }
}

/// What the driver needs.
#[derive(Clone)]
pub struct DriverSetup {
    /// The function; its memory space, bus mastering and translation services are on.
    pub function: FunctionAccess,
    /// Where rings go.
    pub memory: Arc<GuestMemory>,
    /// How rings get addresses.
    pub domain: Arc<dyn DmaDomain>,
    /// How to wait.
    pub pause: Pause,
    /// MSI-X vectors to use, and the interrupt vector of the first.
    pub vectors: (u16, u8),
}

/// A device that was set up.
pub struct Driver {
    setup: DriverSetup,
    bar0: RegisterWindow,
    bar2: RegisterWindow,
    lanes: [CommandLane; 2],
}

/// Registers of a lane, from its base on: ring, size, doorbell.
const LANES: [(u64, u64, u64); 2] =
    [(REG_CMD0_BASE, REG_CMD0_LOG, REG_CMD0_DOORBELL), (REG_CMD1_BASE, REG_CMD1_LOG, REG_CMD1_DOORBELL)];

impl Driver {
    /// Recognises the device, resets it, gives it its command lanes and vectors, and enables it.
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

    /// What it was given.
    pub fn setup(&self) -> &DriverSetup {
        &self.setup
    }

    /// What the device can do.
    pub fn capabilities(&self) -> Result<DeviceCaps, ModelError> {
        self.lane0().execute(CMD_QUERY_DEVICE, &[0u8; 0])
    }

    /// Resets the device through its own register. Everything that was created is gone.
    pub fn reset(&self) -> Result<(), ModelError> {
        reset(&self.bar0, &self.setup.pause)
    }

    /// The lane for commands that may wait.
    pub fn lane0(&self) -> &CommandLane {
        &self.lanes[0]
    }

    /// The lane for commands that never wait for a fault.
    pub fn lane1(&self) -> &CommandLane {
        &self.lanes[1]
    }

    /// The device's registers.
    pub fn bar0(&self) -> &RegisterWindow {
        &self.bar0
    }

    /// The doorbell pages.
    pub fn bar2(&self) -> &RegisterWindow {
        &self.bar2
    }

    /// The function's config space.
    pub fn config(&self) -> &Config {
        &self.setup.function.config
    }

    /// Where rings go.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.setup.memory
    }

    /// How rings get addresses.
    pub fn domain(&self) -> &Arc<dyn DmaDomain> {
        &self.setup.domain
    }

    /// How it waits.
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
