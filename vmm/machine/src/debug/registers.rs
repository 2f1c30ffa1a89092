//! The registers of one vCPU as debuggers know them.

/// All registers that gdb and cores show, with the processor's values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15: gdb's order.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// The flags register.
    pub rflags: u64,
    /// Selectors of CS, SS, DS, ES, FS, GS: gdb's order.
    pub selectors: [u16; 6],
    /// Base address of FS.
    pub fs_base: u64,
    /// Base address of GS.
    pub gs_base: u64,
    /// State of x87 and SSE.
    pub fpu: Fpu,
}

/// State of x87 and SSE, as laid out by FXSAVE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fpu {
    /// ST0 to ST7.
    pub st: [[u8; 10]; 8],
    /// Control word.
    pub control: u16,
    /// Status word.
    pub status: u16,
    /// One bit for each register in use.
    pub in_use: u8,
    /// Opcode of the last instruction.
    pub opcode: u16,
    /// Address of the last instruction.
    pub instruction: u64,
    /// Address of the last instruction's operand.
    pub operand: u64,
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    /// Control and status register of SSE.
    pub mxcsr: u32,
}
