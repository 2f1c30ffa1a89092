//! The names things have on the fabric. Every id prints in hex, as the specifications and Linux print it.

use std::fmt;

/// Requester ID of a PCI function: bus 15:8, device 7:3, function 2:0 (PCIe 6.0, 2.2.6.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bdf(pub u16);

impl Bdf {
    /// The id of `bus`:`device`.`function`; device and function are truncated to 5 and 3 bits.
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | ((device & 0x1f) as u16) << 3 | (function & 7) as u16)
    }

    /// Bus number.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Device and function number together, the index into a context table.
    pub const fn devfn(self) -> u8 {
        self.0 as u8
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.devfn() >> 3, self.devfn() & 7)
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Process Address Space ID: 20 bits (PCIe 6.0, 6.20).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pasid(u32);

impl Pasid {
    /// Width of a PASID in bits.
    pub const BITS: u32 = 20;

    /// The PASID `value`, or `None` if it needs more than 20 bits.
    pub const fn new(value: u32) -> Option<Self> {
        if value >> Self::BITS == 0 { Some(Self(value)) } else { None }
    }

    /// The PASID in the low 20 bits of `value`; for register fields that cannot hold more.
    pub const fn truncated(value: u64) -> Self {
        Self((value & 0xf_ffff) as u32)
    }

    /// The number itself.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Pasid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Pasid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Page Request Group Index: 9 bits, chosen by the device (PCIe 6.0, 10.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrgIndex(u16);

impl PrgIndex {
    /// How many groups one function can have open.
    pub const COUNT: usize = 512;

    /// The index in the low 9 bits of `value`.
    pub const fn truncated(value: u64) -> Self {
        Self((value & 0x1ff) as u16)
    }

    /// The number itself.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for PrgIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Whose addresses a device uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressSpace {
    /// The function's own: requests without a PASID.
    #[default]
    Function,
    /// A process', translated by the IOMMU.
    Process(Pasid),
    /// That of the memory region with this key, translated by the device's own table.
    Region(u32),
}

impl AddressSpace {
    /// The space that a request on the bus names.
    pub const fn of(pasid: Option<Pasid>) -> Self {
        match pasid {
            Some(pasid) => Self::Process(pasid),
            None => Self::Function,
        }
    }

    /// The PASID, of a process.
    pub const fn pasid(self) -> Option<Pasid> {
        match self {
            Self::Process(pasid) => Some(pasid),
            Self::Function | Self::Region(_) => None,
        }
    }

    /// The key, of a region.
    pub const fn key(self) -> Option<u32> {
        match self {
            Self::Region(key) => Some(key),
            Self::Function | Self::Process(_) => None,
        }
    }
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` further on, or `None` past the end of the address space.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The first address of the naturally aligned block of `1 << shift` bytes around this one.
            pub const fn align_down(self, shift: u8) -> Self {
                Self(self.0 >> shift << shift)
            }

            /// The distance from the start of that block, in bytes.
            pub const fn offset_in(self, shift: u8) -> u64 {
                self.0 & ((1 << shift) - 1)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    };
}

address! {
    /// I/O virtual address: what a device puts on the bus. With a PASID it is a process' virtual address.
    Iova
}

address! {
    /// Guest physical address: what comes out of the IOMMU, and what the guest's own tables hold.
    Gpa
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasid_has_twenty_bits() {
        assert_eq!(Pasid::new(0xf_ffff).map(Pasid::get), Some(0xf_ffff));
        assert_eq!(Pasid::new(0x10_0000), None);
        assert_eq!(Pasid::truncated(0xabc1_2345).get(), 0x1_2345);
    }

    #[test]
    fn a_bdf_prints_as_lspci_prints_it() {
        assert_eq!(Bdf::new(0, 3, 1).to_string(), "00:03.1");
        assert_eq!(Bdf::new(0, 3, 1).devfn(), 0x19);
    }

    #[test]
    fn alignment_keeps_the_block() {
        assert_eq!(Iova(0x20_1234).align_down(12), Iova(0x20_1000));
        assert_eq!(Iova(0x20_1234).offset_in(21), 0x1234);
    }
}
