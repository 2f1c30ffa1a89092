//! Memory-mapped registers as the machine sees them.

/// A block of registers. Both methods take an offset inside the block and 1 to 8 bytes of any alignment, because the
/// guest chooses both. Reads where there is no register return zeroes or ones, as the device's specification says;
/// writes there are ignored.
pub trait MmioDevice: Send + Sync {
    /// Fills `data` from `offset`, little endian.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Writes `data` at `offset`, little endian.
    fn write(&self, offset: u64, data: &[u8]);

    /// Puts the device behind the registers into its state after power-on.
    fn reset(&self) {}
}
