//! The headers of InfiniBand's transport: as values, and their layouts on the wire, which are big endian.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::syndrome::{Aeth, Syndrome};

/// Datagram extended transport header (IBTA volume 1, §9.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deth {
    /// Q_Key.
    pub q_key: u32,
    /// Number of the sending queue pair, 24 bits.
    pub source_qpn: u32,
}

/// RDMA extended transport header (§9.3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reth {
    /// Virtual address.
    pub address: u64,
    /// R_Key.
    pub key: u32,
    /// Bytes of the whole message.
    pub length: u32,
}

/// Atomic extended transport header (§9.3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtomicEth {
    /// Virtual address.
    pub address: u64,
    /// R_Key.
    pub key: u32,
    /// What to add, or to write if the comparison holds.
    pub swap_or_add: u64,
    /// What to compare with.
    pub compare: u64,
}

/// FLUSH extended transport header (annex A19.3; rxe_hdr.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feth {
    /// The whole region rather than the range of the [`Reth`].
    pub whole_region: bool,
    /// To global visibility.
    pub global: bool,
    /// To persistence.
    pub persistent: bool,
}

/// Base transport header (§9.2).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct BthWire {
    pub(crate) opcode: u8,
    /// SE 7, M 6, pad 5:4, version 3:0.
    pub(crate) flags: u8,
    pub(crate) partition: U16,
    /// FECN 31, BECN 30, destination 23:0.
    pub(crate) destination: U32,
    /// AckReq 31, PSN 23:0.
    pub(crate) psn: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct DethWire {
    q_key: U32,
    source: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RethWire {
    address: U64,
    key: U32,
    length: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct AtomicWire {
    address: U64,
    key: U32,
    swap_or_add: U64,
    compare: U64,
}

/// Syndrome 31:24, MSN 23:0.
pub(crate) type AethWire = U32;

/// Selectivity 5:4, placement 3:0.
pub(crate) type FethWire = U32;

/// Numbers of queue pairs, and message sequence numbers.
pub(crate) const LOW_24: u32 = 0xff_ffff;

impl From<DethWire> for Deth {
    fn from(wire: DethWire) -> Self {
        Self { q_key: wire.q_key.get(), source_qpn: wire.source.get() & LOW_24 }
    }
}

impl From<Deth> for DethWire {
    fn from(header: Deth) -> Self {
        Self { q_key: header.q_key.into(), source: (header.source_qpn & LOW_24).into() }
    }
}

impl From<RethWire> for Reth {
    fn from(wire: RethWire) -> Self {
        Self { address: wire.address.get(), key: wire.key.get(), length: wire.length.get() }
    }
}

impl From<Reth> for RethWire {
    fn from(header: Reth) -> Self {
        Self { address: header.address.into(), key: header.key.into(), length: header.length.into() }
    }
}

impl From<AtomicWire> for AtomicEth {
    fn from(wire: AtomicWire) -> Self {
        Self {
            address: wire.address.get(),
            key: wire.key.get(),
            swap_or_add: wire.swap_or_add.get(),
            compare: wire.compare.get(),
        }
    }
}

impl From<AtomicEth> for AtomicWire {
    fn from(header: AtomicEth) -> Self {
        Self {
            address: header.address.into(),
            key: header.key.into(),
            swap_or_add: header.swap_or_add.into(),
            compare: header.compare.into(),
        }
    }
}

impl From<AethWire> for Aeth {
    fn from(wire: AethWire) -> Self {
        let [syndrome, ..] = wire.get().to_be_bytes();
        Self { syndrome: Syndrome::from_byte(syndrome), msn: wire.get() & LOW_24 }
    }
}

impl From<Aeth> for AethWire {
    fn from(header: Aeth) -> Self {
        (u32::from(header.syndrome.to_byte()) << 24 | header.msn & LOW_24).into()
    }
}

/// Bits of a [`FethWire`].
const GLOBAL: u32 = 1;
const PERSISTENT: u32 = 1 << 1;
const WHOLE_REGION: u32 = 1 << 4;

impl From<FethWire> for Feth {
    fn from(wire: FethWire) -> Self {
        let has = |bit| wire.get() & bit != 0;
        Self { whole_region: has(WHOLE_REGION), global: has(GLOBAL), persistent: has(PERSISTENT) }
    }
}

impl From<Feth> for FethWire {
    fn from(header: Feth) -> Self {
        let bit = |is_set: bool, bit| if is_set { bit } else { 0 };
        let region = bit(header.whole_region, WHOLE_REGION);
        (region | bit(header.global, GLOBAL) | bit(header.persistent, PERSISTENT)).into()
    }
}
