//! Identifiers and addresses on the fabric. All print in hex, as in the specifications and in Linux.

use std::fmt;

use crate::bits::{low_u16, low_u32};

/// Requester ID of a PCI function: bus 15:8, device 7:3, function 2:0 (PCIe 6.0, 2.2.6.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bdf(pub u16);

impl Bdf {
    /// The id of `bus`:`device`.`function`; device and function are truncated to 5 and 3 bits.
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self(u16::from_be_bytes([bus, (device & 0x1f) << 3 | function & 7]))
    }

    /// Bus number, bits 15:8: the index into a root table.
    pub const fn bus(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// Device and function number, bits 7:0: the index into a context table.
    pub const fn devfn(self) -> u8 {
        self.0.to_be_bytes()[1]
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

    /// The PASID in bits 19:0 of `value`; for register fields that are no wider.
    pub const fn truncated(value: u64) -> Self {
        Self(low_u32(value & 0xf_ffff))
    }

    /// The PASID as a number below 2^20.
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
    /// Number of groups that one function can have open.
    pub const COUNT: usize = 512;

    /// The index in bits 8:0 of `value`.
    pub const fn truncated(value: u64) -> Self {
        Self(low_u16(value & 0x1ff))
    }

    /// The index as a number below [`Self::COUNT`].
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for PrgIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The address space that a device's address belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressSpace {
    /// The function's own address space: requests without a PASID.
    #[default]
    Function,
    /// The address space of a process, translated by the IOMMU: requests with this PASID.
    Process(Pasid),
    /// The addresses of the memory region with this key, translated by a table of the region's own.
    Region(u32),
}

impl AddressSpace {
    /// The address space of a request with or without a PASID.
    pub const fn of(pasid: Option<Pasid>) -> Self {
        match pasid {
            Some(pasid) => Self::Process(pasid),
            None => Self::Function,
        }
    }

    /// The PASID of a process; `None` for the other kinds.
    pub const fn pasid(self) -> Option<Pasid> {
        match self {
            Self::Process(pasid) => Some(pasid),
            Self::Function | Self::Region(_) => None,
        }
    }

    /// The key of a region; `None` for the other kinds.
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
            /// This address plus `bytes`, or `None` past 2^64.
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

            /// Offset of this address in that block, in bytes.
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
    /// I/O virtual address, as a device puts it on the bus. With a PASID it is a virtual address of a process.
    Iova
}

address! {
    /// Guest-physical address, as the IOMMU returns it and as the guest's own tables hold it.
    Gpa
}

impl Gpa {
    /// Width of an address in bits: the most that an x86 processor's page tables hold. So whatever frame a guest's
    /// processor can name, a device can, and no guest is too large. A unit that walks those tables with fewer bits would
    /// refuse entries that are valid to the processor.
    pub const WIDTH: u8 = 52;
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
