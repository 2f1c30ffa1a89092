//! Message-signalled interrupts: a write of `data` to `address`, which the machine turns into an interrupt.

/// One MSI as a function or the IOMMU sends it (PCIe 6.0, 6.1.4; Intel SDM vol. 3, 12.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct MsiMessage {
    /// Address of the write, normally in 0xfee0_0000..0xfef0_0000.
    pub address: u64,
    /// The value written: vector, delivery mode and trigger mode.
    pub data: u32,
}

/// The receiver of interrupts. Senders hold locks while they call it, so it must not block or call back into them: a guest
/// that masks an interrupt and reads the mask back must find the message sent, or not get it.
pub trait MsiSink: Send + Sync {
    /// Delivers one message. A message that addresses nothing is dropped, as on a real machine.
    fn signal(&self, message: MsiMessage);
}
