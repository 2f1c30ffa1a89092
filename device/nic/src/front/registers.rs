//! The registers of BAR 0.

use std::sync::Mutex;

use refault_abi::command::{CMD_MAX_LOG_SLOTS, CMD_SLOT_SIZE};
use refault_abi::regs::{
    ABI_VERSION, CONTROL_ENABLE, MAGIC_VALUE, REG_CMD0_BASE, REG_CMD0_LOG, REG_CMD1_BASE, REG_CMD1_LOG,
    REG_CONTROL, REG_MAGIC, REG_STATUS, REG_TIME_NS, REG_VERSION, STATUS_FATAL, STATUS_READY,
};
use refault_bus::Iova;
use refault_bus::bits::{high_u32, low_u32};
use refault_bus::sync::lock;

/// Upper halves of 64-bit registers.
const REG_CMD0_BASE_HIGH: u64 = REG_CMD0_BASE + 4;
const REG_CMD1_BASE_HIGH: u64 = REG_CMD1_BASE + 4;
const REG_TIME_NS_HIGH: u64 = REG_TIME_NS + 4;

/// Command lanes.
pub(crate) const LANES: usize = 2;
/// The lane whose commands never wait.
pub(crate) const URGENT: usize = 1;

/// One command lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lane {
    base: u64,
    log: u32,
    producer: u32,
    consumer: u32,
}

/// What the driver has written.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    enabled: bool,
    fatal: bool,
    lanes: [Lane; LANES],
}

/// The registers. Their lock is a leaf.
#[derive(Debug, Default)]
pub(crate) struct Registers(Mutex<State>);

/// The slot of a command to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandPlace {
    pub(crate) lane: usize,
    pub(crate) iova: Iova,
}

impl Registers {
    /// All as after a reset.
    pub(crate) fn reset(&self) {
        *lock(&self.0) = State::default();
    }

    /// The next command of a lane.
    pub(crate) fn next_command(&self, lane: usize) -> Option<CommandPlace> {
        let state = lock(&self.0);
        let Lane { base, log, producer, consumer } = state.lanes[lane];
        if !state.enabled || state.fatal || producer == consumer {
            return None;
        }
        let slot = u64::from(consumer & ((1 << log) - 1));
        let iova = Iova(base.wrapping_add(slot * u64::from(CMD_SLOT_SIZE)));
        Some(CommandPlace { lane, iova })
    }

    /// The command at the head of `lane` was executed.
    pub(crate) fn command_done(&self, lane: usize) {
        if let Some(lane) = lock(&self.0).lanes.get_mut(lane) {
            lane.consumer = lane.consumer.wrapping_add(1);
        }
    }

    /// A ring cannot be read or written: nothing is served until reset.
    pub(crate) fn set_fatal(&self) {
        lock(&self.0).fatal = true;
    }

    pub(crate) fn is_enabled(&self) -> bool {
        lock(&self.0).enabled
    }

    pub(crate) fn enable(&self) {
        lock(&self.0).enabled = true;
    }

    /// The driver's doorbell of a lane; `false` if the device is not enabled.
    ///
    /// # Errors
    ///
    /// The producer index is out of range: nothing is served until reset. Returns the consumer index.
    pub(crate) fn ring_lane(&self, lane: usize, producer: u32) -> Result<bool, u32> {
        let mut state = lock(&self.0);
        let Some(ring) = state.enabled.then_some(()).and(state.lanes.get_mut(lane)) else {
            return Ok(false);
        };
        if producer.wrapping_sub(ring.consumer) > 1 << ring.log {
            let consumer = ring.consumer;
            state.fatal = true;
            return Err(consumer);
        }
        ring.producer = producer;
        Ok(true)
    }

    /// The 32-bit register at `offset`; what is no register reads as zero. `broken`: an event was lost.
    pub(crate) fn read(&self, offset: u64, time_ns: u64, broken: bool) -> u32 {
        let state = *lock(&self.0);
        let [lane0, lane1] = &state.lanes;
        match offset {
            REG_MAGIC => MAGIC_VALUE,
            REG_VERSION => ABI_VERSION,
            REG_CONTROL => u32::from(state.enabled) * CONTROL_ENABLE,
            REG_STATUS => {
                let fatal = state.fatal || broken;
                let ready = state.enabled && !fatal;
                (u32::from(ready) * STATUS_READY) | (u32::from(fatal) * STATUS_FATAL)
            }
            REG_CMD0_BASE => low_u32(lane0.base),
            REG_CMD0_BASE_HIGH => high_u32(lane0.base),
            REG_CMD0_LOG => lane0.log,
            REG_CMD1_BASE => low_u32(lane1.base),
            REG_CMD1_BASE_HIGH => high_u32(lane1.base),
            REG_CMD1_LOG => lane1.log,
            REG_TIME_NS => low_u32(time_ns),
            REG_TIME_NS_HIGH => high_u32(time_ns),
            _ => 0,
        }
    }

    /// Writes base or size of a lane, which have no effect while the device is enabled.
    pub(crate) fn set_up_lane(&self, offset: u64, value: u32) {
        let mut state = lock(&self.0);
        if state.enabled {
            return;
        }
        let [lane0, lane1] = &mut state.lanes;
        let low = u64::from(value & !0xfff);
        let high = u64::from(value) << 32;
        match offset {
            REG_CMD0_BASE => lane0.base = lane0.base >> 32 << 32 | low,
            REG_CMD0_BASE_HIGH => lane0.base = lane0.base & 0xffff_ffff | high,
            REG_CMD0_LOG => lane0.log = value.min(CMD_MAX_LOG_SLOTS),
            REG_CMD1_BASE => lane1.base = lane1.base >> 32 << 32 | low,
            REG_CMD1_BASE_HIGH => lane1.base = lane1.base & 0xffff_ffff | high,
            REG_CMD1_LOG => lane1.log = value.min(CMD_MAX_LOG_SLOTS),
            _ => {}
        }
    }
}
