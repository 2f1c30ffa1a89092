//! Conversion between KVM's registers and those that debuggers know.

use kvm_bindings::{kvm_fpu, kvm_regs, kvm_sregs};

use crate::debug::registers::{Fpu, Registers};

/// Converts all registers from KVM.
pub(super) fn from_kvm(general: &kvm_regs, special: &kvm_sregs, fpu: &kvm_fpu) -> Registers {
    let kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    } = *general;
    let segments = [special.cs, special.ss, special.ds, special.es, special.fs, special.gs];
    Registers {
        general: [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15],
        rip,
        rflags,
        selectors: segments.map(|segment| segment.selector),
        fs_base: special.fs.base,
        gs_base: special.gs.base,
        fpu: Fpu {
            st: fpu.fpr.map(|register| register.first_chunk().copied().unwrap_or_default()),
            control: fpu.fcw,
            status: fpu.fsw,
            in_use: fpu.ftwx,
            opcode: fpu.last_opcode,
            instruction: fpu.last_ip,
            operand: fpu.last_dp,
            xmm: fpu.xmm.map(u128::from_le_bytes),
            mxcsr: fpu.mxcsr,
        },
    }
}

/// Converts the general registers to KVM's.
pub(super) fn general(registers: &Registers) -> kvm_regs {
    let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15] = registers.general;
    let Registers { rip, rflags, .. } = *registers;
    kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags }
}

/// Converts the x87 and SSE registers to KVM's.
pub(super) fn fpu(registers: &Registers) -> kvm_fpu {
    let Fpu { st, control, status, in_use, opcode, instruction, operand, xmm, mxcsr } = &registers.fpu;
    let mut fpu = kvm_fpu {
        fcw: *control,
        fsw: *status,
        ftwx: *in_use,
        last_opcode: *opcode,
        last_ip: *instruction,
        last_dp: *operand,
        xmm: xmm.map(u128::to_le_bytes),
        mxcsr: *mxcsr,
        ..kvm_fpu::default()
    };
    for (register, value) in fpu.fpr.iter_mut().zip(st) {
        for (to, from) in register.iter_mut().zip(value) {
            *to = *from;
        }
    }
    fpu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_survive_a_round_trip() {
        let general_ones =
            kvm_regs { rax: 1, rsp: 2, rbp: 3, r15: 4, rip: 5, rflags: 6, ..kvm_regs::default() };
        let mut fpu_ones = kvm_fpu { fcw: 0x37f, ftwx: 3, mxcsr: 0x1f80, ..kvm_fpu::default() };
        fpu_ones.fpr[1][9] = 0x40;
        fpu_ones.xmm[15][0] = 9;
        let registers = from_kvm(&general_ones, &kvm_sregs::default(), &fpu_ones);
        assert_eq!((registers.general[7], registers.general[6]), (2, 3), "gdb has RBP before RSP");
        assert_eq!((general(&registers), fpu(&registers)), (general_ones, fpu_ones));
    }
}
