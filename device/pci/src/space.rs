//! The 4 KiB of config space as a table of registers, which says for each bit what a write does.

/// Size of a PCI Express function's config space in bytes.
pub(crate) const CONFIG_SIZE: usize = 4096;

const DWORDS: usize = CONFIG_SIZE / 4;

/// One dword: its value after reset, the bits a guest may write, and those it clears by writing ones (RW1C).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Register {
    pub(crate) reset: u32,
    pub(crate) writable: u32,
    pub(crate) w1c: u32,
}

impl Register {
    /// A register that is read-only for the guest.
    pub(crate) const fn constant(value: u32) -> Self {
        Self { reset: value, writable: 0, w1c: 0 }
    }

    /// The same, with the bits of `mask` writable.
    pub(crate) const fn writable(self, mask: u32) -> Self {
        Self { writable: mask, ..self }
    }

    /// The same, with the bits of `mask` cleared by writing ones.
    pub(crate) const fn cleared_by_ones(self, mask: u32) -> Self {
        Self { w1c: mask, ..self }
    }
}

/// Config space: registers and their current values.
#[derive(Debug)]
pub(crate) struct ConfigSpace {
    registers: Box<[Register; DWORDS]>,
    values: Box<[u32; DWORDS]>,
}

impl ConfigSpace {
    pub(crate) fn new() -> Self {
        Self { registers: Box::new([Register::default(); DWORDS]), values: Box::new([0; DWORDS]) }
    }

    /// Puts `register` at dword `index`; ignored past the end.
    pub(crate) fn define(&mut self, index: usize, register: Register) {
        if let (Some(slot), Some(value)) = (self.registers.get_mut(index), self.values.get_mut(index)) {
            *slot = register;
            *value = register.reset;
        }
    }

    /// The register at dword `index`; past the end, one without bits.
    pub(crate) fn register(&self, index: usize) -> Register {
        self.registers.get(index).copied().unwrap_or_default()
    }

    /// The value of dword `index`; all ones past the end.
    pub(crate) fn value(&self, index: usize) -> u32 {
        self.values.get(index).copied().unwrap_or(u32::MAX)
    }

    /// Sets the bits of `mask` to those of `bits`: a change made by the function itself.
    pub(crate) fn assign(&mut self, index: usize, mask: u32, bits: u32) {
        if let Some(value) = self.values.get_mut(index) {
            *value = *value & !mask | bits & mask;
        }
    }

    /// Performs a read of the guest; bytes past the end read as ones.
    pub(crate) fn read(&self, offset: u16, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(usize::from(offset)..) {
            *byte = self.value(at / 4).to_le_bytes()[at % 4];
        }
    }

    /// Performs a write of the guest, and calls `written` for each dword that it covers, after its value has changed.
    pub(crate) fn write(&mut self, offset: u16, data: &[u8], mut written: impl FnMut(DwordWrite)) {
        let (start, end) = (usize::from(offset), usize::from(offset) + data.len());
        for index in start / 4..end.div_ceil(4).min(DWORDS) {
            let (mut bits, mut mask) = (0u32, 0u32);
            for at in (index * 4).max(start)..(index * 4 + 4).min(end) {
                let shift = at % 4 * 8;
                bits |= u32::from(data[at - start]) << shift;
                mask |= 0xff << shift;
            }
            let Register { writable, w1c, .. } = self.registers[index];
            let before = self.values[index];
            let stored = before & !(writable & mask) | bits & writable & mask;
            self.values[index] = stored & !(bits & w1c & mask);
            written(DwordWrite { index, bits: bits & mask, before });
        }
    }

    /// Sets every dword to its value after reset.
    pub(crate) fn reset(&mut self) {
        for (value, register) in self.values.iter_mut().zip(self.registers.iter()) {
            *value = register.reset;
        }
    }
}

/// One dword of a config write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DwordWrite {
    /// Index of the dword.
    pub(crate) index: usize,
    /// The bits that the guest wrote, zero in bytes that it did not write.
    pub(crate) bits: u32,
    /// The dword's value before the write.
    pub(crate) before: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::new();
        space.define(1, Register::constant(0x1234_5678).writable(0x0000_ffff).cleared_by_ones(0x00ff_0000));
        space
    }

    #[test]
    fn a_byte_write_touches_its_byte_alone() {
        let mut space = space();
        space.write(5, &[0xaa], |_| ());
        assert_eq!(space.value(1), 0x1234_aa78);
        space.write(6, &[0x30, 0xff], |_| ());
        assert_eq!(space.value(1), 0x1204_aa78);
    }

    #[test]
    fn reset_brings_back_everything() {
        let mut space = space();
        space.write(4, &[0xff; 4], |_| ());
        assert_eq!(space.value(1), 0x1200_ffff);
        space.reset();
        assert_eq!(space.value(1), 0x1234_5678);
    }

    #[test]
    fn past_the_end_reads_are_ones_and_writes_ignored() {
        let mut space = space();
        let mut data = [0; 8];
        space.read(4092, &mut data);
        assert_eq!(data, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        space.write(4094, &[0; 64], |_| ());
        space.write(u16::MAX, &[0; 64], |_| ());
    }
}
