//! Page request descriptors (§7.4.1.1), the entries of the page request queue.

use bitfield_struct::bitfield;
use refault_bus::pri::PageRequest;

/// Size of a page request descriptor in bytes.
pub const PAGE_REQUEST_BYTES: usize = 32;

/// First quadword of a page request descriptor, §7.4.1.1.
#[bitfield(u64)]
pub struct PageRequestSource {
    /// Type, bits 7:0: always 1.
    pub kind: u8,
    /// PP, bit 8: the request has a PASID.
    pub pasid_present: bool,
    #[bits(7)]
    __: u8,
    /// RID, bits 31:16: requester ID.
    pub requester: u16,
    /// PASID, bits 51:32, valid with PP.
    #[bits(20)]
    pub pasid: u32,
    /// EXR, bit 52: execute requested.
    pub execute: bool,
    /// PMR, bit 53: privileged mode requested.
    pub privileged: bool,
    #[bits(10)]
    __: u16,
}

/// Second quadword of a page request descriptor, §7.4.1.1.
#[bitfield(u64)]
pub struct PageRequestPage {
    /// RDR, bit 64: read requested.
    pub read: bool,
    /// WRR, bit 65: write requested.
    pub write: bool,
    /// LPIG, bit 66: last in its group.
    pub last: bool,
    /// PRGI, bits 75:67: group index.
    #[bits(9)]
    pub group: u16,
    /// ADDR, bits 127:76: number of the 4 KiB page.
    #[bits(52)]
    pub frame: u64,
}

/// The descriptor of `request`, in the byte order of the queue.
pub fn encode(request: &PageRequest) -> [u8; PAGE_REQUEST_BYTES] {
    let source = PageRequestSource::new()
        .with_kind(1)
        .with_pasid_present(request.pasid.is_some())
        .with_requester(request.requester.0)
        .with_pasid(request.pasid.map_or(0, |pasid| pasid.get()));
    let page = PageRequestPage::new()
        .with_read(request.read)
        .with_write(request.write)
        .with_last(request.last)
        .with_group(request.group.get())
        .with_frame(request.page.0 >> 12);
    let mut bytes = [0; PAGE_REQUEST_BYTES];
    bytes[..8].copy_from_slice(&source.into_bits().to_le_bytes());
    bytes[8..16].copy_from_slice(&page.into_bits().to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use refault_bus::{Bdf, Iova, Pasid, PrgIndex};

    #[test]
    fn a_request_reads_as_linux_decodes_it() {
        let bytes = encode(&PageRequest {
            requester: Bdf(0x0018),
            pasid: Pasid::new(0x5_4321),
            page: Iova(0x7f07_5d20_0000),
            read: true,
            write: true,
            last: true,
            group: PrgIndex::truncated(0x1aa),
        });
        assert_eq!(bytes[..8], 0x0005_4321_0018_0101u64.to_le_bytes());
        assert_eq!(bytes[8..16], (0x7f07_5d20_0000u64 | 0x1aa << 3 | 7).to_le_bytes());
        assert_eq!(bytes[16..], [0; 16]);
    }
}
