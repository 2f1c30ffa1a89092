//! Breakpoints, watchpoints and single steps for KVM (KVM_SET_GUEST_DEBUG), and whether an exception is the debugger's or
//! the guest's.

use std::sync::Arc;

use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_INJECT_DB,
    KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, kvm_debug_exit_arch,
    kvm_guest_debug,
};

use crate::debug::traps::{HARDWARE_TRAPS, HardwareTrap, StopReason, TrapAccess, Traps};

/// Vectors of the debug and breakpoint exceptions.
const DEBUG: u32 = 1;
const BREAKPOINT: u32 = 3;
/// In DR6: a single step completed. Bits 0 to 3 say which debug registers matched.
const STEPPED: u64 = 1 << 14;
/// In DR7: a bit that reads as one, and exact breakpoints.
const DR7_FIXED: u64 = 1 << 10 | 1 << 9;

/// The traps that one vCPU is set up with.
#[derive(Clone, Debug)]
pub(super) struct VcpuTraps {
    pub(super) traps: Arc<Traps>,
    pub(super) step: bool,
}

/// Whose exception caused a debug exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExceptionOwner {
    /// The debugger's exception, with the reason for the stop.
    Stop(StopReason),
    /// The guest's own, which must be injected.
    Inject(u32),
}

impl VcpuTraps {
    /// The settings in KVM's format. With `quiet`, a single step blocks interrupts, so that it does not end in a handler.
    pub(super) fn control(&self, quiet: bool) -> kvm_guest_debug {
        let mut debug = kvm_guest_debug { control: KVM_GUESTDBG_ENABLE, ..kvm_guest_debug::default() };
        if self.step {
            debug.control |= KVM_GUESTDBG_SINGLESTEP | if quiet { KVM_GUESTDBG_BLOCKIRQ } else { 0 };
        }
        if !self.traps.software.is_empty() {
            debug.control |= KVM_GUESTDBG_USE_SW_BP;
        }
        if self.traps.hardware.iter().any(Option::is_some) {
            debug.control |= KVM_GUESTDBG_USE_HW_BP;
            let [d0, d1, d2, d3, .., dr7] = &mut debug.arch.debugreg;
            for (register, trap) in [d0, d1, d2, d3].into_iter().zip(&self.traps.hardware) {
                *register = trap.map_or(0, |trap| trap.address);
            }
            *dr7 = dr7_of(&self.traps.hardware);
        }
        debug
    }

    /// Determines whose exception caused a debug exit.
    pub(super) fn judge(&self, exit: &kvm_debug_exit_arch) -> ExceptionOwner {
        match exit.exception {
            BREAKPOINT if self.traps.software.contains(&exit.pc) => {
                ExceptionOwner::Stop(StopReason::Software)
            }
            DEBUG if self.step && exit.dr6 & STEPPED != 0 => ExceptionOwner::Stop(StopReason::Step),
            DEBUG => {
                let met = |index: &usize| {
                    exit.dr6 >> index & 1 != 0 && self.traps.hardware.get(*index).is_some_and(Option::is_some)
                };
                let index = (0..HARDWARE_TRAPS).find(met);
                index.map_or(ExceptionOwner::Inject(DEBUG), |index| {
                    ExceptionOwner::Stop(StopReason::Hardware(index))
                })
            }
            exception => ExceptionOwner::Inject(exception),
        }
    }
}

/// The bit that makes KVM inject an exception into the guest.
pub(super) fn injection(exception: u32) -> u32 {
    if exception == BREAKPOINT { KVM_GUESTDBG_INJECT_BP } else { KVM_GUESTDBG_INJECT_DB }
}

fn dr7_of(traps: &[Option<HardwareTrap>; HARDWARE_TRAPS]) -> u64 {
    let bits = traps.iter().enumerate().filter_map(|(index, trap)| {
        let trap = (*trap)?;
        let access = match trap.access {
            TrapAccess::Execute => 0,
            TrapAccess::Write => 1,
            TrapAccess::ReadWrite => 3,
        };
        let length = match trap.length {
            2 => 1,
            4 => 3,
            8 => 2,
            _ => 0u64,
        };
        // Enabled for all tasks.
        Some(2 << (index * 2) | (length << 2 | access) << (16 + index * 4))
    });
    bits.fold(DR7_FIXED, |all, bits| all | bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed(step: bool) -> VcpuTraps {
        let watch = HardwareTrap { address: 0x2000, length: 8, access: TrapAccess::Write };
        let hardware = [None, Some(watch), None, None];
        VcpuTraps { traps: Arc::new(Traps { software: [0x1000].into(), hardware }), step }
    }

    fn exit(exception: u32, pc: u64, dr6: u64) -> kvm_debug_exit_arch {
        kvm_debug_exit_arch { exception, pc, dr6, ..kvm_debug_exit_arch::default() }
    }

    #[test]
    fn the_debuggers_exceptions_are_not_injected() {
        let (armed, stepping) = (armed(false), armed(true));
        assert_eq!(armed.judge(&exit(BREAKPOINT, 0x1000, 0)), ExceptionOwner::Stop(StopReason::Software));
        assert_eq!(armed.judge(&exit(BREAKPOINT, 0x1001, 0)), ExceptionOwner::Inject(BREAKPOINT));
        assert_eq!(armed.judge(&exit(DEBUG, 0, 0b0010)), ExceptionOwner::Stop(StopReason::Hardware(1)));
        assert_eq!(armed.judge(&exit(DEBUG, 0, 0b0001)), ExceptionOwner::Inject(DEBUG));
        assert_eq!(armed.judge(&exit(DEBUG, 0, STEPPED)), ExceptionOwner::Inject(DEBUG));
        assert_eq!(stepping.judge(&exit(DEBUG, 0, STEPPED)), ExceptionOwner::Stop(StopReason::Step));
    }

    #[test]
    fn only_requested_traps_are_enabled() {
        let none = VcpuTraps { traps: Arc::default(), step: false }.control(true);
        assert_eq!(none.control, KVM_GUESTDBG_ENABLE);
        let all = armed(true).control(true);
        assert_eq!(
            all.control,
            KVM_GUESTDBG_ENABLE
                | KVM_GUESTDBG_SINGLESTEP
                | KVM_GUESTDBG_BLOCKIRQ
                | KVM_GUESTDBG_USE_SW_BP
                | KVM_GUESTDBG_USE_HW_BP
        );
        assert_eq!(all.arch.debugreg[..4], [0, 0x2000, 0, 0]);
        // Register 1: enabled, writes, 8 bytes.
        assert_eq!(all.arch.debugreg[7], DR7_FIXED | 1 << 3 | 0b1001 << 20);
        assert_eq!(armed(true).control(false).control & KVM_GUESTDBG_BLOCKIRQ, 0);
    }
}
