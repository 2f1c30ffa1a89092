//! gdb's commands, executed on the guest.

use std::collections::BTreeMap;
use std::sync::Arc;

use gdbstub::common::{Signal, Tid};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{self, TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;

use super::registers::{from_gdb, to_gdb};
use super::{DebuggedGuest, Resume, memory};
use crate::debug::traps::{HARDWARE_TRAPS, HardwareTrap, StopReason, TrapAccess, Traps, VcpuStop};

/// gdb's error number for inaccessible memory: EFAULT.
const NO_MEMORY: u8 = 14;
/// The breakpoint instruction.
const INT3: u8 = 0xcc;

/// The guest, and gdb's traps in it.
pub(super) struct GdbTarget {
    guest: Arc<dyn DebuggedGuest>,
    /// The vCPU that stopped last: breakpoint addresses are translated by its page tables.
    current: u8,
    /// What INT3 replaced: guest-physical address and original byte.
    software: BTreeMap<u64, (u64, u8)>,
    hardware: [Option<HardwareTrap>; HARDWARE_TRAPS],
    /// The vCPU that is to single-step.
    step: Option<u8>,
    /// The vCPU that is to run, if only one is.
    chosen: Option<u8>,
    locked: bool,
}

impl GdbTarget {
    pub(super) fn new(guest: Arc<dyn DebuggedGuest>) -> Self {
        let hardware = [None; HARDWARE_TRAPS];
        Self {
            guest,
            current: 0,
            software: BTreeMap::new(),
            hardware,
            step: None,
            chosen: None,
            locked: false,
        }
    }

    /// Removes all traps from the guest and resumes it.
    pub(super) fn release(mut self) {
        self.guest.halt();
        for saved in std::mem::take(&mut self.software).into_values() {
            self.restore(saved);
        }
        // Without traps only the host's KVM can fail, and then the guest stays as it is.
        let _ = self.guest.resume(&Resume::default());
    }

    /// The stop reason for gdb. From now on addresses are translated by this vCPU's page tables.
    pub(super) fn reason(&mut self, stop: VcpuStop) -> MultiThreadStopReason<u64> {
        self.current = stop.cpu;
        let tid = thread(stop.cpu);
        match (stop.why, self.hardware_of(stop.why)) {
            (
                StopReason::Hardware(_),
                Some(HardwareTrap { address: addr, access: TrapAccess::Write, .. }),
            ) => MultiThreadStopReason::Watch { tid, kind: WatchKind::Write, addr },
            (
                StopReason::Hardware(_),
                Some(HardwareTrap { address: addr, access: TrapAccess::ReadWrite, .. }),
            ) => MultiThreadStopReason::Watch { tid, kind: WatchKind::ReadWrite, addr },
            (StopReason::Hardware(_), _) => MultiThreadStopReason::HwBreak(tid),
            (StopReason::Software, _) => MultiThreadStopReason::SwBreak(tid),
            (StopReason::Step, _) => MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP },
        }
    }

    /// The stop reason for an interrupt by gdb.
    pub(super) fn interrupted(&self) -> MultiThreadStopReason<u64> {
        MultiThreadStopReason::SignalWithThread { tid: thread(self.current), signal: Signal::SIGINT }
    }

    /// Whether a stop would not recur if the guest continued: a data access, which is already complete.
    pub(super) fn is_past(&self, stop: VcpuStop) -> bool {
        self.hardware_of(stop.why).is_some_and(|trap| trap.access != TrapAccess::Execute)
    }

    fn hardware_of(&self, why: StopReason) -> Option<HardwareTrap> {
        let StopReason::Hardware(index) = why else { return None };
        *self.hardware.get(index)?
    }

    /// Translates a guest-virtual address to a guest-physical one, by the page tables of the vCPU that stopped last, or else
    /// of any other.
    fn translate(&self, address: u64) -> Option<u64> {
        let others = (0..self.guest.cpus()).filter(|cpu| *cpu != self.current);
        [self.current].into_iter().chain(others).find_map(|cpu| self.guest.translate(cpu, address))
    }

    fn restore(&self, (physical, byte): (u64, u8)) {
        let mut now = [0];
        // The guest may have overwritten it meanwhile.
        if self.guest.read(physical, &mut now) && now == [INT3] {
            self.guest.write(physical, &[byte]);
        }
    }

    fn add_hardware(&mut self, trap: HardwareTrap) -> bool {
        let free = self.hardware.iter_mut().find(|slot| slot.is_none());
        free.map(|slot| *slot = Some(trap)).is_some()
    }

    fn remove_hardware(&mut self, trap: HardwareTrap) -> bool {
        let ours = self.hardware.iter_mut().find(|slot| **slot == Some(trap));
        ours.map(|slot| *slot = None).is_some()
    }
}

fn thread(cpu: u8) -> Tid {
    Tid::MIN.saturating_add(cpu.into())
}

fn cpu(thread: Tid) -> u8 {
    u8::try_from(thread.get() - 1).unwrap_or(u8::MAX)
}

/// A trap for a data access, if a debug register can express it.
fn watch(address: u64, length: u64, kind: WatchKind) -> Option<HardwareTrap> {
    let access = match kind {
        WatchKind::Write => TrapAccess::Write,
        WatchKind::ReadWrite => TrapAccess::ReadWrite,
        // The processor has no trap for reads alone.
        WatchKind::Read => return None,
    };
    let length = u8::try_from(length).ok().filter(|length| matches!(length, 1 | 2 | 4 | 8))?;
    address.is_multiple_of(length.into()).then_some(HardwareTrap { address, length, access })
}

fn instruction(address: u64) -> HardwareTrap {
    HardwareTrap { address, length: 1, access: TrapAccess::Execute }
}

impl target::Target for GdbTarget {
    type Arch = X86_64_SSE;
    type Error = anyhow::Error;

    fn base_ops(&mut self) -> BaseOps<'_, Self::Arch, Self::Error> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for GdbTarget {
    fn read_registers(&mut self, registers: &mut X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        *registers = to_gdb(&self.guest.registers(cpu(tid)).map_err(|_| TargetError::NonFatal)?);
        Ok(())
    }

    fn write_registers(&mut self, registers: &X86_64CoreRegs, tid: Tid) -> TargetResult<(), Self> {
        let set = || {
            let now = self.guest.registers(cpu(tid)).ok()?;
            self.guest.set_registers(cpu(tid), &from_gdb(registers, &now)?).ok()
        };
        set().ok_or(TargetError::NonFatal)
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        match memory::read(&*self.guest, cpu(tid), start, data) {
            0 => Err(TargetError::Errno(NO_MEMORY)),
            count => Ok(count),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let all = memory::write(&*self.guest, cpu(tid), start, data);
        all.then_some(()).ok_or(TargetError::Errno(NO_MEMORY))
    }

    fn list_active_threads(&mut self, register: &mut dyn FnMut(Tid)) -> Result<(), Self::Error> {
        (0..self.guest.cpus()).for_each(|cpu| register(thread(cpu)));
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl ThreadExtraInfo for GdbTarget {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, Self::Error> {
        let text = format!("vCPU {}", cpu(tid));
        Ok(buffer.iter_mut().zip(text.bytes()).map(|(to, byte)| *to = byte).count())
    }
}

impl MultiThreadResume for GdbTarget {
    fn resume(&mut self) -> Result<(), Self::Error> {
        let traps = Traps { software: self.software.keys().copied().collect(), hardware: self.hardware };
        let only = self.step.or(self.chosen).filter(|_| self.locked);
        self.guest.resume(&Resume { traps: Arc::new(traps), step: self.step, only })
    }

    fn clear_resume_actions(&mut self) -> Result<(), Self::Error> {
        (self.step, self.chosen, self.locked) = (None, None, false);
        Ok(())
    }

    fn set_resume_action_continue(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Self::Error> {
        self.chosen = Some(cpu(tid));
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for GdbTarget {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Self::Error> {
        self.step = Some(cpu(tid));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for GdbTarget {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Self::Error> {
        self.locked = true;
        Ok(())
    }
}

impl Breakpoints for GdbTarget {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for GdbTarget {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        if self.software.contains_key(&address) {
            return Ok(true);
        }
        let Some(physical) = self.translate(address) else { return Ok(false) };
        let mut byte = [0];
        if !self.guest.read(physical, &mut byte) || !self.guest.write(physical, &[INT3]) {
            return Ok(false);
        }
        self.software.insert(address, (physical, byte[0]));
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let Some(saved) = self.software.remove(&address) else { return Ok(false) };
        self.restore(saved);
        Ok(true)
    }
}

impl HwBreakpoint for GdbTarget {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.add_hardware(instruction(address)))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.remove_hardware(instruction(address)))
    }
}

impl HwWatchpoint for GdbTarget {
    fn add_hw_watchpoint(&mut self, address: u64, length: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        Ok(watch(address, length, kind).is_some_and(|trap| self.add_hardware(trap)))
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        length: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        Ok(watch(address, length, kind).is_some_and(|trap| self.remove_hardware(trap)))
    }
}

#[cfg(test)]
pub(super) mod tests;
