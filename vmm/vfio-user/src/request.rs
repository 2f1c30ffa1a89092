//! Parses a client's requests. Checks everything that can be checked without a device: sizes, counts, overflow, and
//! reserved bits that would change the meaning.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::RequestError;

/// Command numbers. Reset is 13, as in QEMU; some versions of the specification's table say 14.
pub mod command {
    #![allow(missing_docs, reason = "the names are the specification's")]
    pub const VERSION: u16 = 1;
    pub const DMA_MAP: u16 = 2;
    pub const DMA_UNMAP: u16 = 3;
    pub const DEVICE_GET_INFO: u16 = 4;
    pub const DEVICE_GET_REGION_INFO: u16 = 5;
    pub const DEVICE_GET_IRQ_INFO: u16 = 7;
    pub const DEVICE_SET_IRQS: u16 = 8;
    pub const REGION_READ: u16 = 9;
    pub const REGION_WRITE: u16 = 10;
    pub const DMA_READ: u16 = 11;
    pub const DMA_WRITE: u16 = 12;
    pub const DEVICE_RESET: u16 = 13;
}

/// Bytes of one region access at most.
pub const DATA_MAX: usize = 1 << 20;
/// Bytes of any message's payload at most.
pub const PAYLOAD_MAX: usize = DATA_MAX + 64;
/// File descriptors with one message at most.
pub const FDS_MAX: usize = 16;

/// One request, borrowed from its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Protocol version, and the client's capabilities.
    Version {
        /// Major version; must be 0.
        major: u16,
        /// Minor version; any is accepted.
        minor: u16,
        /// JSON text, without its final NUL.
        capabilities: &'a [u8],
    },
    /// Adds guest memory that the device may access. It is accessible if a file descriptor accompanies the request.
    DmaMap(DmaMap),
    /// Removes guest memory; the device must not access it any more.
    DmaUnmap(DmaUnmap),
    /// Asks for the number of regions and of interrupt kinds.
    DeviceInfo,
    /// Asks for the size and flags of one region.
    RegionInfo {
        /// Index of the region.
        index: u32,
    },
    /// Asks for the number of interrupts of one kind.
    IrqInfo {
        /// Index of the kind.
        index: u32,
    },
    /// Sets where interrupts go.
    SetIrqs(SetIrqs),
    /// Reads from a region.
    RegionRead(RegionAccess),
    /// Writes to a region.
    RegionWrite(RegionAccess, &'a [u8]),
    /// Resets the device to its power-on state.
    Reset,
}

/// A range of guest memory and where its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaMap {
    /// Guest-physical address of the range.
    pub address: u64,
    /// Length in bytes, at least one.
    pub size: u64,
    /// Offset of the range in the file, in bytes.
    pub offset: u64,
    /// The device may read it.
    pub readable: bool,
    /// The device may write it.
    pub writable: bool,
}

/// A range of guest memory to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaUnmap {
    /// Guest-physical address of the range; ignored with `all`.
    pub address: u64,
    /// Length in bytes; ignored with `all`.
    pub size: u64,
    /// Whether to remove every range, whatever the address.
    pub all: bool,
}

/// An access to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionAccess {
    /// Index of the region: 0 to 5 are the BARs, 7 is config space.
    pub region: u32,
    /// Offset in the region, in bytes.
    pub offset: u64,
    /// Length in bytes, 1 to [`DATA_MAX`].
    pub count: u32,
}

/// A change to the interrupts of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetIrqs {
    /// Index of the kind: 2 is MSI-X.
    pub index: u32,
    /// First vector to change.
    pub start: u32,
    /// Number of vectors from `start` on.
    pub count: u32,
    /// The data that accompanies the change.
    pub data: IrqData,
    /// The action to take.
    pub action: IrqAction,
}

/// The data that accompanies a change of interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqData {
    /// No data: the action applies to the vectors themselves.
    None,
    /// One eventfd for each vector, or none at all to disconnect them.
    EventFds,
}

/// What to do with interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqAction {
    /// Mask the vectors: none is delivered.
    Mask,
    /// Unmask the vectors.
    Unmask,
    /// With eventfds, connect them; without, trigger now.
    Trigger,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawVersion {
    major: u16,
    minor: u16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawMap {
    argsz: u32,
    flags: u32,
    offset: u64,
    address: u64,
    size: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawUnmap {
    argsz: u32,
    flags: u32,
    address: u64,
    size: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    rest: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawIrqs {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawAccess {
    offset: u64,
    region: u32,
    count: u32,
}

/// `VFIO_DMA_MAP_FLAG_READ` and `_WRITE`.
const MAP_READ: u32 = 1;
const MAP_WRITE: u32 = 2;
/// `VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP` and `_ALL`.
const UNMAP_DIRTY: u32 = 1;
const UNMAP_ALL: u32 = 2;
/// `VFIO_IRQ_SET_*`.
const IRQ_DATA: u32 = 0b111;
const IRQ_ACTION: u32 = 0b11_1000;

/// Parses the payload of a request.
///
/// # Errors
/// The command is unknown, or a size or field is invalid.
pub fn parse(command: u16, payload: &[u8]) -> Result<Request<'_>, RequestError> {
    match command {
        command::VERSION => version(payload),
        command::DMA_MAP => exactly(payload).and_then(dma_map),
        command::DMA_UNMAP => exactly(payload).and_then(dma_unmap),
        command::DEVICE_GET_INFO => exactly(payload).map(|_: RawInfo| Request::DeviceInfo),
        command::DEVICE_GET_REGION_INFO => {
            // The request is as large as its reply: `index` follows size and flags, and the rest is filled by the reply.
            let (raw, _) = RawInfo::read_from_prefix(payload).map_err(|_| RequestError::Invalid)?;
            Ok(Request::RegionInfo { index: raw.index })
        }
        command::DEVICE_GET_IRQ_INFO => {
            exactly(payload).map(|raw: RawInfo| Request::IrqInfo { index: raw.index })
        }
        command::DEVICE_SET_IRQS => set_irqs(payload),
        command::REGION_READ => {
            let access = access(&exactly(payload)?)?;
            Ok(Request::RegionRead(access))
        }
        command::REGION_WRITE => {
            let (raw, data) = RawAccess::read_from_prefix(payload).map_err(|_| RequestError::Invalid)?;
            let access = access(&raw)?;
            match data.len() == access.count as usize {
                true => Ok(Request::RegionWrite(access, data)),
                false => Err(RequestError::Invalid),
            }
        }
        command::DEVICE_RESET => Ok(Request::Reset),
        _ => Err(RequestError::Unsupported),
    }
}

fn exactly<T: FromBytes>(payload: &[u8]) -> Result<T, RequestError> {
    T::read_from_bytes(payload).map_err(|_| RequestError::Invalid)
}

fn version(payload: &[u8]) -> Result<Request<'_>, RequestError> {
    let (raw, text) = RawVersion::read_from_prefix(payload).map_err(|_| RequestError::Invalid)?;
    let capabilities = match text.split_last() {
        None => text,
        Some((0, text)) => text,
        Some(_) => return Err(RequestError::Invalid),
    };
    Ok(Request::Version { major: raw.major, minor: raw.minor, capabilities })
}

fn dma_map(raw: RawMap) -> Result<Request<'static>, RequestError> {
    let RawMap { flags, offset, address, size, .. } = raw;
    let known = flags & !(MAP_READ | MAP_WRITE) == 0;
    let ends = address.checked_add(size).is_some() && offset.checked_add(size).is_some();
    if size == 0 || !known || !ends {
        return Err(RequestError::Invalid);
    }
    let (readable, writable) = (flags & MAP_READ != 0, flags & MAP_WRITE != 0);
    Ok(Request::DmaMap(DmaMap { address, size, offset, readable, writable }))
}

fn dma_unmap(raw: RawUnmap) -> Result<Request<'static>, RequestError> {
    let RawUnmap { flags, address, size, .. } = raw;
    let all = flags & UNMAP_ALL != 0;
    if flags & UNMAP_DIRTY != 0 {
        return Err(RequestError::Unsupported);
    }
    if flags & !(UNMAP_DIRTY | UNMAP_ALL) != 0 || address.checked_add(size).is_none() || !all && size == 0 {
        return Err(RequestError::Invalid);
    }
    Ok(Request::DmaUnmap(DmaUnmap { address, size, all }))
}

fn set_irqs(payload: &[u8]) -> Result<Request<'static>, RequestError> {
    let (raw, _) = RawIrqs::read_from_prefix(payload).map_err(|_| RequestError::Invalid)?;
    let data = match raw.flags & IRQ_DATA {
        1 => IrqData::None,
        4 => IrqData::EventFds,
        _ => return Err(RequestError::Invalid),
    };
    let action = match raw.flags & IRQ_ACTION {
        0x08 => IrqAction::Mask,
        0x10 => IrqAction::Unmask,
        0x20 => IrqAction::Trigger,
        _ => return Err(RequestError::Invalid),
    };
    if raw.start.checked_add(raw.count).is_none() || raw.flags & !(IRQ_DATA | IRQ_ACTION) != 0 {
        return Err(RequestError::Invalid);
    }
    Ok(Request::SetIrqs(SetIrqs { index: raw.index, start: raw.start, count: raw.count, data, action }))
}

fn access(raw: &RawAccess) -> Result<RegionAccess, RequestError> {
    let RawAccess { offset, region, count } = *raw;
    if count as usize > DATA_MAX {
        return Err(RequestError::TooBig);
    }
    if count == 0 || offset.checked_add(u64::from(count)).is_none() {
        return Err(RequestError::Invalid);
    }
    Ok(RegionAccess { region, offset, count })
}
