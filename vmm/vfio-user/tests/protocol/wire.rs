//! Layouts, byte by byte, as QEMU sends and takes them.

use refault_vfio_user::header::{HEADER_SIZE, Header};
use refault_vfio_user::reply;
use refault_vfio_user::request::{
    DATA_MAX, DmaMap, DmaUnmap, IrqAction, IrqData, RegionAccess, Request, SetIrqs, command, parse,
};
use refault_vfio_user::{RequestError, request::PAYLOAD_MAX};
use zerocopy::{FromBytes, IntoBytes};

use crate::client::bytes;

#[test]
fn a_header_is_16_bytes_id_command_size_flags_error() {
    let header = Header::request(0x1234, command::REGION_READ, 16);
    assert_eq!(HEADER_SIZE, 16);
    assert_eq!(header.as_bytes(), [0x34, 0x12, 9, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(header.posted().as_bytes()[8..], [0x10, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(header.reply(0).as_bytes(), [0x34, 0x12, 9, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        header.error_reply(95).as_bytes(),
        [0x34, 0x12, 9, 0, 16, 0, 0, 0, 0x21, 0, 0, 0, 95, 0, 0, 0]
    );
}

#[test]
fn a_header_shows_its_type_and_error() {
    let with =
        |size: u32, flags: u32| Header::read_from_bytes(&bytes![7u16, 2u16, size, flags, 19u32]).unwrap();
    assert_eq!(with(16, 0).is_reply(), Some(false));
    assert_eq!(with(16, 1).is_reply(), Some(true));
    assert!((2..16).all(|kind| with(16, kind).is_reply().is_none()));
    assert!(with(16, 0x10).is_posted() && !with(16, 0x21).is_posted());
    assert_eq!((with(16, 1).error(), with(16, 0x21).error()), (None, Some(19)));
    assert_eq!(
        (with(15, 0).payload(), with(16, 0).payload(), with(48, 0).payload()),
        (None, Some(0), Some(32))
    );
}

#[test]
fn a_reply_to_a_posted_request_is_not_posted_itself() {
    assert!(!Header::request(1, 1, 0).posted().reply(0).is_posted());
    assert!(!Header::request(1, 1, 0).posted().error_reply(22).is_posted());
}

#[test]
fn a_write_to_guest_memory_has_a_count_of_64_bits_and_its_data_at_32() {
    let message = reply::dma_write(0x0102, 0xfee0_0000, &[0x21, 0, 0, 0]);
    let expected = bytes![
        0x0102u16,
        12u16,
        36u32,
        0u32,
        0u32, // header
        0xfee0_0000u64,
        4u64, // address, count
        0x21u32,
    ];
    assert_eq!(message, expected);
    assert_eq!(message[32..], [0x21, 0, 0, 0]);
}

#[test]
fn commands_have_qemus_numbers() {
    use command::*;
    let numbers = [
        VERSION,
        DMA_MAP,
        DMA_UNMAP,
        DEVICE_GET_INFO,
        DEVICE_GET_REGION_INFO,
        DEVICE_GET_IRQ_INFO,
        DEVICE_SET_IRQS,
        REGION_READ,
        REGION_WRITE,
        DMA_READ,
        DMA_WRITE,
        DEVICE_RESET,
    ];
    assert_eq!(numbers, [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13], "reset is 13, not the specification's 14");
}

#[test]
fn replies_are_laid_out_as_in_vfio() {
    assert_eq!(reply::device_info(), bytes![16u32, 3u32, 9u32, 5u32]);
    assert_eq!(reply::region_info(7, 4096), bytes![32u32, 3u32, 7u32, 0u32, 4096u64, 0u64]);
    assert_eq!(reply::region_info(6, 0), bytes![32u32, 0u32, 6u32, 0u32, 0u64, 0u64], "no ROM");
    assert_eq!(reply::irq_info(2, 9), bytes![16u32, 1u32, 2u32, 9u32]);
    let range = DmaUnmap { address: 0x10_0000, size: 0x2000, all: false };
    assert_eq!(reply::unmapped(range), bytes![24u32, 0u32, 0x10_0000u64, 0x2000u64]);
    let all = DmaUnmap { address: 0, size: 0, all: true };
    assert_eq!(reply::unmapped(all), bytes![24u32, 2u32, 0u64, 0u64]);
    let access = RegionAccess { region: 0, offset: 0xdc, count: 2 };
    assert_eq!(reply::accessed(access, &[5, 6]), [bytes![0xdcu64, 0u32, 2u32], vec![5, 6]].concat());
}

#[test]
fn the_version_is_0_0_with_json_that_ends_in_nul() {
    let payload = reply::version();
    assert_eq!(payload[..4], [0; 4]);
    let (end, text) = payload[4..].split_last().unwrap();
    assert_eq!(*end, 0);
    let json: serde_json::Value = serde_json::from_slice(text).unwrap();
    let capabilities = &json["capabilities"];
    assert_eq!(capabilities["max_msg_fds"], 16);
    assert_eq!(capabilities["max_data_xfer_size"], 1 << 20);
    assert_eq!(capabilities["pgsizes"], 4096);
}

#[test]
fn a_map_is_32_bytes_size_flags_offset_address_size() {
    let payload = bytes![32u32, 2u32, 0x8000_0000u64, 0x1_0000_0000u64, 0x4000_0000u64];
    let map = DmaMap {
        address: 0x1_0000_0000,
        size: 0x4000_0000,
        offset: 0x8000_0000,
        readable: false,
        writable: true,
    };
    assert_eq!(parse(2, &payload), Ok(Request::DmaMap(map)));
    assert_eq!(parse(2, &payload[..31]), Err(RequestError::Invalid));
    assert_eq!(parse(2, &[payload, vec![0]].concat()), Err(RequestError::Invalid));
}

#[test]
fn a_map_that_is_empty_wraps_or_has_unknown_flags_is_refused() {
    let map = |flags: u32, offset: u64, address: u64, size: u64| {
        parse(2, &bytes![32u32, flags, offset, address, size]).map(drop)
    };
    assert_eq!(map(3, 0, 0, 0), Err(RequestError::Invalid));
    assert_eq!(map(4, 0, 0, 1), Err(RequestError::Invalid));
    assert_eq!(map(3, 0, u64::MAX, 1), Err(RequestError::Invalid));
    assert_eq!(map(3, u64::MAX, 0, 1), Err(RequestError::Invalid));
    assert_eq!(map(3, 0, u64::MAX - 1, 1), Ok(()));
}

#[test]
fn an_unmap_is_a_range_or_everything() {
    let unmap =
        |flags: u32, address: u64, size: u64| parse(3, &bytes![24u32, flags, address, size]).map(drop);
    let range = DmaUnmap { address: 0x1000, size: 0x2000, all: false };
    assert_eq!(parse(3, &bytes![24u32, 0u32, 0x1000u64, 0x2000u64]), Ok(Request::DmaUnmap(range)));
    assert_eq!(unmap(2, 0, 0), Ok(()));
    assert_eq!(unmap(0, 0x1000, 0), Err(RequestError::Invalid));
    assert_eq!(unmap(0, u64::MAX, 1), Err(RequestError::Invalid));
    assert_eq!(unmap(4, 0x1000, 1), Err(RequestError::Invalid));
    assert_eq!(unmap(1, 0x1000, 1), Err(RequestError::Unsupported), "no dirty bitmap");
}

#[test]
fn interrupts_are_20_bytes_size_flags_index_start_count() {
    let set = |flags: u32| bytes![20u32, flags, 2u32, 3u32, 4u32];
    let expected =
        |data, action| Ok(Request::SetIrqs(SetIrqs { index: 2, start: 3, count: 4, data, action }));
    assert_eq!(parse(8, &set(0x24)), expected(IrqData::EventFds, IrqAction::Trigger));
    assert_eq!(parse(8, &set(0x21)), expected(IrqData::None, IrqAction::Trigger));
    assert_eq!(parse(8, &set(0x09)), expected(IrqData::None, IrqAction::Mask));
    assert_eq!(parse(8, &set(0x11)), expected(IrqData::None, IrqAction::Unmask));
    // No data, two kinds of data, no action, two actions, a bit that means nothing.
    for flags in [0x20, 0x25, 0x04, 0x34, 0x64] {
        assert_eq!(parse(8, &set(flags)), Err(RequestError::Invalid), "{flags:#x}");
    }
    assert_eq!(parse(8, &bytes![20u32, 0x24u32, 2u32, u32::MAX, 1u32]), Err(RequestError::Invalid));
}

#[test]
fn an_access_is_16_bytes_offset_region_count() {
    let access = RegionAccess { region: 7, offset: 0x34, count: 2 };
    let payload = bytes![0x34u64, 7u32, 2u32];
    assert_eq!(parse(9, &payload), Ok(Request::RegionRead(access)));
    let store = [payload.clone(), vec![1, 2]].concat();
    assert_eq!(parse(10, &store), Ok(Request::RegionWrite(access, &[1, 2])));
    assert_eq!(parse(10, &payload), Err(RequestError::Invalid), "less data than the count says");
    assert_eq!(parse(10, &[store, vec![3]].concat()), Err(RequestError::Invalid), "more");
    assert_eq!(parse(9, &bytes![0u64, 0u32, 0u32]), Err(RequestError::Invalid));
    assert_eq!(parse(9, &bytes![u64::MAX, 0u32, 1u32]), Err(RequestError::Invalid));
    assert_eq!(parse(9, &bytes![0u64, 0u32, DATA_MAX as u32 + 1]), Err(RequestError::TooBig));
    const { assert!(16 + DATA_MAX <= PAYLOAD_MAX, "the largest store is a message") };
}

#[test]
fn a_version_has_text_that_ends_in_nul_or_none() {
    let version = |text: &'static [u8]| parse(1, text);
    let expected = |capabilities| Ok(Request::Version { major: 0, minor: 1, capabilities });
    assert_eq!(version(b"\0\0\x01\0{}\0"), expected(b"{}"));
    assert_eq!(version(b"\0\0\x01\0"), expected(b""));
    assert_eq!(version(b"\0\0\x01\0{}"), Err(RequestError::Invalid));
    assert_eq!(version(b"\0\0\x01"), Err(RequestError::Invalid));
}

#[test]
fn other_commands_are_unsupported() {
    for command in [0, 6, command::DMA_READ, command::DMA_WRITE, 14, 15, u16::MAX] {
        assert_eq!(parse(command, &[]), Err(RequestError::Unsupported), "{command}");
    }
}
