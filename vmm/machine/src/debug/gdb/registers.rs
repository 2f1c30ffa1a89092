//! Registers in gdb's format.

use gdbstub_arch::x86::reg::{X86_64CoreRegs, X86SegmentRegs, X87FpuInternalRegs};
use refault_bus::bits::{high_u32, low_u16, low_u32};

use crate::debug::registers::{Fpu, Registers};

/// Converts to gdb's format.
pub(super) fn to_gdb(registers: &Registers) -> X86_64CoreRegs {
    let [cs, ss, ds, es, fs, gs] = registers.selectors.map(u32::from);
    let fpu = &registers.fpu;
    X86_64CoreRegs {
        regs: registers.general,
        // The upper half is reserved.
        eflags: low_u32(registers.rflags),
        rip: registers.rip,
        segments: X86SegmentRegs { cs, ss, ds, es, fs, gs },
        st: fpu.st,
        fpu: X87FpuInternalRegs {
            fctrl: fpu.control.into(),
            fstat: fpu.status.into(),
            ftag: tags(fpu.in_use),
            fiseg: high_u32(fpu.instruction),
            fioff: low_u32(fpu.instruction),
            foseg: high_u32(fpu.operand),
            fooff: low_u32(fpu.operand),
            fop: fpu.opcode.into(),
        },
        xmm: fpu.xmm,
        mxcsr: fpu.mxcsr,
    }
}

/// Converts from gdb's format; `now` are the current values. `None` if a segment would change, which is not possible.
pub(super) fn from_gdb(wanted: &X86_64CoreRegs, now: &Registers) -> Option<Registers> {
    if wanted.segments != to_gdb(now).segments {
        return None;
    }
    let fpu = &wanted.fpu;
    Some(Registers {
        general: wanted.regs,
        rip: wanted.rip,
        rflags: now.rflags >> 32 << 32 | u64::from(wanted.eflags),
        fpu: Fpu {
            st: wanted.st,
            control: low_u16(fpu.fctrl.into()),
            status: low_u16(fpu.fstat.into()),
            in_use: in_use(fpu.ftag),
            opcode: low_u16(fpu.fop.into()),
            instruction: u64::from(fpu.fiseg) << 32 | u64::from(fpu.fioff),
            operand: u64::from(fpu.foseg) << 32 | u64::from(fpu.fooff),
            xmm: wanted.xmm,
            mxcsr: wanted.mxcsr,
        },
        ..now.clone()
    })
}

/// Two bits per register, as in FSAVE: 0 if it holds a number, 3 if it is empty.
fn tags(in_use: u8) -> u32 {
    (0..8).filter(|register| in_use >> register & 1 == 0).map(|register| 3 << (register * 2)).sum()
}

fn in_use(tags: u32) -> u8 {
    (0..8).filter(|register| tags >> (register * 2) & 3 != 3).map(|register| 1 << register).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers() -> Registers {
        Registers {
            general: std::array::from_fn(|index| index as u64 + 1),
            rip: 0xffff_ffff_8100_0000,
            rflags: 0x246,
            selectors: [0x10, 0x18, 0, 0, 0, 0],
            gs_base: 7,
            fpu: Fpu { in_use: 0b101, instruction: 0x12_0000_0034, mxcsr: 0x1f80, ..Fpu::default() },
            ..Registers::default()
        }
    }

    #[test]
    fn what_gdb_writes_back_unchanged_changes_nothing() {
        assert_eq!(from_gdb(&to_gdb(&registers()), &registers()), Some(registers()));
        assert_eq!(to_gdb(&registers()).fpu.ftag, 0xffcc);
    }

    #[test]
    fn a_segment_cannot_be_changed() {
        let mut wanted = to_gdb(&registers());
        wanted.regs[0] = 99;
        assert_eq!(from_gdb(&wanted, &registers()).map(|registers| registers.general[0]), Some(99));
        wanted.segments.cs = 0x33;
        assert_eq!(from_gdb(&wanted, &registers()), None);
    }
}
