//! BAR 0: the registers of the function. Accesses are 4 bytes, or 8 where a register is 8 bytes wide.

constants! { REGISTERS, "BAR 0 registers: offsets":
    /// r32: always MAGIC_VALUE, so that a driver knows it talks to this device.
    pub const REG_MAGIC: u64 = 0x00;
    /// r32: ABI_VERSION; a driver of another version must refuse the device.
    pub const REG_VERSION: u64 = 0x04;
    /// rw32: CONTROL_* bits.
    pub const REG_CONTROL: u64 = 0x08;
    /// r32: STATUS_* bits.
    pub const REG_STATUS: u64 = 0x0c;
    /// rw64: IOVA of the command ring of lane 0, 4 KiB aligned; writable while not enabled.
    pub const REG_CMD0_BASE: u64 = 0x10;
    /// rw32: log2 of that ring's slots, 0..=CMD_MAX_LOG_SLOTS; writable while not enabled.
    pub const REG_CMD0_LOG: u64 = 0x18;
    /// w32: lane 0 producer index, free running: slots before it are commands to execute.
    pub const REG_CMD0_DOORBELL: u64 = 0x1c;
    /// rw64: the same for lane 1, the lane that never waits for a fault.
    pub const REG_CMD1_BASE: u64 = 0x20;
    /// rw32: log2 of lane 1's slots.
    pub const REG_CMD1_LOG: u64 = 0x28;
    /// w32: lane 1 producer index.
    pub const REG_CMD1_DOORBELL: u64 = 0x2c;
    /// r64: the device's clock in nanoseconds; completions are stamped with it.
    pub const REG_TIME_NS: u64 = 0x40;
    /// w32, one per event queue: consumer index in bits 30:0, EQ_ARM in bit 31.
    pub const REG_EQ_DOORBELL: u64 = 0x100;
}

constants! { REGISTER_VALUES, "BAR 0 registers: values":
    /// "RFLT".
    pub const MAGIC_VALUE: u32 = 0x544c_4652;
    /// Version of everything in this header.
    pub const ABI_VERSION: u32 = 4;
    /// The command rings are set up, and commands are executed. Clearing it stops the device like a reset.
    pub const CONTROL_ENABLE: u32 = 1 << 0;
    /// Reset: every object is destroyed, every register has its initial value; reads as 0 when done.
    pub const CONTROL_RESET: u32 = 1 << 1;
    /// Enabled and serving.
    pub const STATUS_READY: u32 = 1 << 0;
    /// A command or event ring failed, or a command producer index was out of range: no command is served until reset.
    pub const STATUS_FATAL: u32 = 1 << 1;
    /// In an event queue doorbell: send an interrupt with the next event, or at once if one is not consumed yet.
    pub const EQ_ARM: u32 = 1 << 31;
    /// Size of BAR 0 in bytes.
    pub const BAR0_SIZE: u64 = 0x1000;
    /// BAR 2 holds one doorbell page per context.
    pub const DOORBELL_PAGE_SIZE: u64 = 0x1000;
    /// Most event queues a device has.
    pub const MAX_EQS: u32 = 64;
    /// PCI vendor id (none is assigned; this one is not in use).
    pub const PCI_VENDOR_ID: u16 = 0x1fef;
    /// PCI device id.
    pub const PCI_DEVICE_ID: u16 = 0x0001;
}
