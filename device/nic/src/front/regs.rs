//! BAR 0: the registers.

use std::sync::Mutex;

use refault_abi::command::{CMD_MAX_LOG_SLOTS, CMD_SLOT_SIZE};
use refault_abi::regs::*;
use refault_bus::Iova;

use crate::Nic;
use crate::memory::guard::lock;

/// Command lanes.
const LANES: usize = 2;
/// The one that never waits.
pub(crate) const URGENT: usize = 1;

/// One command lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lane {
    base: u64,
    log: u32,
    producer: u32,
    consumer: u32,
}

/// What a driver wrote.
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
    /// Everything back to its start.
    pub(crate) fn reset(&self) {
        *lock(&self.0) = State::default();
    }

    /// The next command of those lanes, in their order.
    pub(crate) fn next_command(&self, lanes: &[usize]) -> Option<CommandPlace> {
        let state = lock(&self.0);
        if !state.enabled || state.fatal {
            return None;
        }
        let waiting = |lane: &&usize| state.lanes[**lane].producer != state.lanes[**lane].consumer;
        let lane = *lanes.iter().find(waiting)?;
        let Lane { base, log, consumer, .. } = state.lanes[lane];
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
}

impl Nic {
    /// A read of BAR 0, of any width and alignment; what is no register reads as zero.
    pub(crate) fn registers_read(&self, offset: u64, data: &mut [u8]) {
        let time_ns = self.fabric.now_ns();
        for (byte, at) in data.iter_mut().zip(offset..) {
            let word = self.read_word(at & !3, time_ns);
            *byte = (word >> (at % 4 * 8)) as u8;
        }
    }

    fn read_word(&self, offset: u64, time_ns: u64) -> u32 {
        let state = *lock(&self.registers.0);
        let [lane0, lane1] = &state.lanes;
        match offset {
            REG_MAGIC => MAGIC_VALUE,
            REG_VERSION => ABI_VERSION,
            REG_CONTROL => u32::from(state.enabled) * CONTROL_ENABLE,
            REG_STATUS => {
                let fatal = state.fatal || self.events.is_broken();
                let ready = state.enabled && !fatal;
                (u32::from(ready) * STATUS_READY) | (u32::from(fatal) * STATUS_FATAL)
            }
            REG_CMD0_BASE => lane0.base as u32,
            REG_CMD0_BASE_HIGH => (lane0.base >> 32) as u32,
            REG_CMD0_LOG => lane0.log,
            REG_CMD1_BASE => lane1.base as u32,
            REG_CMD1_BASE_HIGH => (lane1.base >> 32) as u32,
            REG_CMD1_LOG => lane1.log,
            REG_TIME_NS => time_ns as u32,
            REG_TIME_NS_HIGH => (time_ns >> 32) as u32,
            _ => 0,
        }
    }

    /// A write to BAR 0: 4 bytes, or 8 as two of 4; anything else is ignored.
    pub(crate) fn registers_write(&self, offset: u64, data: &[u8]) {
        let width = data.len() as u64;
        if !matches!(width, 4 | 8) || !offset.is_multiple_of(width) {
            return;
        }
        for (word, at) in data.chunks_exact(4).zip((offset..).step_by(4)) {
            if let Ok(word) = word.try_into() {
                self.write_word(at, u32::from_le_bytes(word));
            }
        }
    }

    fn write_word(&self, offset: u64, value: u32) {
        match offset {
            REG_CONTROL => self.control(value),
            REG_CMD0_DOORBELL => self.ring_lane(0, value),
            REG_CMD1_DOORBELL => self.ring_lane(1, value),
            REG_EQ_DOORBELL.. => {
                let eqn = (offset - REG_EQ_DOORBELL) / 4;
                if eqn < u64::from(MAX_EQS) {
                    let mut port = self.front_port();
                    self.events.doorbell(&mut port, eqn as u32, value & !EQ_ARM, value & EQ_ARM != 0);
                }
            }
            _ => set_up_lane(&mut lock(&self.registers.0), offset, value),
        }
    }

    fn control(&self, value: u32) {
        let enabled = lock(&self.registers.0).enabled;
        let enable = value & CONTROL_ENABLE != 0;
        if value & CONTROL_RESET != 0 || enabled && !enable {
            self.destroy_everything();
        } else if enable && !enabled {
            let mut state = lock(&self.registers.0);
            state.enabled = true;
        }
    }

    fn ring_lane(&self, lane: usize, producer: u32) {
        let mut state = lock(&self.registers.0);
        let Some(ring) = state.enabled.then_some(()).and(state.lanes.get_mut(lane)) else { return };
        if producer.wrapping_sub(ring.consumer) > 1 << ring.log {
            let consumer = ring.consumer;
            if let Some(number) = self.fabric.ring_warnings.admit() {
                tracing::warn!(number, lane, producer, consumer, "command producer index out of range");
            }
            state.fatal = true;
            return;
        }
        ring.producer = producer;
        drop(state);
        match lane {
            URGENT => self.serve_urgent_commands(),
            _ => self.schedule_commands(),
        }
    }
}

const REG_CMD0_BASE_HIGH: u64 = REG_CMD0_BASE + 4;
const REG_CMD1_BASE_HIGH: u64 = REG_CMD1_BASE + 4;
const REG_TIME_NS_HIGH: u64 = REG_TIME_NS + 4;

/// Base and size of the lanes can be written while the device is not enabled.
fn set_up_lane(state: &mut State, offset: u64, value: u32) {
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
