//! What the server sends: payloads of replies, and its own requests.

use zerocopy::{Immutable, IntoBytes};

use crate::header::Header;
use crate::request::{DATA_MAX, DmaUnmap, FDS_MAX, RegionAccess, command};

/// `VFIO_DEVICE_FLAGS_RESET` and `_PCI`.
const DEVICE_FLAGS: u32 = 1 | 2;
/// Regions of a PCI device: six BARs, ROM, config space, VGA.
pub const REGIONS: u32 = 9;
/// Kinds of interrupts of a PCI device: INTx, MSI, MSI-X, error, request.
pub const IRQ_KINDS: u32 = 5;
/// `VFIO_IRQ_INFO_EVENTFD`.
const IRQ_EVENTFD: u32 = 1;
/// Ranges of guest memory at most, for each function.
pub const MAPS_MAX: usize = 4096;

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Info {
    argsz: u32,
    flags: u32,
    first: u32,
    second: u32,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct RegionInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    cap_offset: u32,
    size: u64,
    offset: u64,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Unmapped {
    argsz: u32,
    flags: u32,
    address: u64,
    size: u64,
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Accessed {
    offset: u64,
    region: u32,
    count: u32,
}

/// Header and payload in one buffer: QEMU treats a header that arrives in two reads as an error.
pub fn message(header: Header, payload: &[u8]) -> Vec<u8> {
    [header.as_bytes(), payload].concat()
}

/// Payload of the version reply: version 0.0 and the server's limits as JSON.
pub fn version() -> Vec<u8> {
    let capabilities = serde_json::json!({
        "capabilities": {
            "max_msg_fds": FDS_MAX,
            "max_data_xfer_size": DATA_MAX,
            "max_dma_maps": MAPS_MAX,
            "pgsizes": 4096,
        }
    });
    let mut payload = vec![0; 4];
    payload.extend(capabilities.to_string().as_bytes());
    payload.push(0);
    payload
}

/// Payload for the device info of a PCI device that can be reset.
pub fn device_info() -> Vec<u8> {
    Info { argsz: 16, flags: DEVICE_FLAGS, first: REGIONS, second: IRQ_KINDS }.as_bytes().to_vec()
}

/// Payload for the info of one region of `size` bytes; size zero means that it does not exist.
pub fn region_info(index: u32, size: u64) -> Vec<u8> {
    const READ_WRITE: u32 = 1 | 2;
    let flags = if size == 0 { 0 } else { READ_WRITE };
    RegionInfo { argsz: 32, flags, index, cap_offset: 0, size, offset: 0 }.as_bytes().to_vec()
}

/// Payload for the info of one kind of interrupt with `count` vectors.
pub fn irq_info(index: u32, count: u32) -> Vec<u8> {
    Info { argsz: 16, flags: IRQ_EVENTFD, first: index, second: count }.as_bytes().to_vec()
}

/// Payload of the reply to an unmap.
pub fn unmapped(unmap: DmaUnmap) -> Vec<u8> {
    let flags = if unmap.all { 2 } else { 0 };
    Unmapped { argsz: 24, flags, address: unmap.address, size: unmap.size }.as_bytes().to_vec()
}

/// Payload of the reply to an access; `data` is what a read returned.
pub fn accessed(access: RegionAccess, data: &[u8]) -> Vec<u8> {
    let RegionAccess { offset, region, count } = access;
    [Accessed { offset, region, count }.as_bytes(), data].concat()
}

/// A request of the server: a write to guest memory through the client. The count has 64 bits as in QEMU; the specification
/// has 32.
pub fn dma_write(id: u16, address: u64, data: &[u8]) -> Vec<u8> {
    let payload = [address.as_bytes(), (data.len() as u64).as_bytes(), data].concat();
    message(Header::request(id, command::DMA_WRITE, payload.len()), &payload)
}
