//! Memory-mapped registers as the machine sees them.

/// A block of registers. Reads and writes have an offset inside the block and 1 to 8 bytes of any alignment, because the
/// guest chooses both. Reads where there is no register return zeroes or ones, as the device's specification says;
/// writes there are ignored.
pub trait MmioDevice: Send + Sync {
    /// Fills `data` from `offset`, little endian.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Writes `data` at `offset`, little endian.
    fn write(&self, offset: u64, data: &[u8]);

    /// Resets the device behind the registers to its state after power-on.
    fn reset(&self) {}
}
