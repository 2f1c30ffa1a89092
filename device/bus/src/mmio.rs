//! Memory-mapped registers as the machine sees them.

/// A window of registers. Both calls take an offset inside the window and 1 to 8 bytes, of any alignment:
/// what a guest may do to a window is not in the window's hands. Reads of nothing give zeroes or ones as
/// the device's manual says; writes to nothing are ignored.
pub trait MmioDevice: Send + Sync {
    /// Fills `data`, little endian.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes `data`, little endian.
    fn write(&self, offset: u64, data: &[u8]);

    /// Puts the device behind the registers into its state after power-on.
    fn reset(&self) {}
}
