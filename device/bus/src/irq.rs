//! Message-signalled interrupts: a write of `data` to `address` that the machine turns into an interrupt.

/// One MSI as a function or the IOMMU sends it (PCIe 6.0, 6.1.4; Intel SDM vol. 3, 12.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct MsiMessage {
    /// Address of the write, normally in 0xfee0_0000..0xfef0_0000.
    pub address: u64,
    /// The value written: vector and delivery mode.
    pub data: u32,
}

/// Where interrupts go. Must not block and must not call back into the sender.
pub trait MsiSink: Send + Sync {
    /// Delivers one message. A message that addresses nothing is dropped, as on a real machine.
    fn signal(&self, message: MsiMessage);
}
