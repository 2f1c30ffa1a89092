//! A session as QEMU conducts it, and the order of events in it.

use std::os::unix::net::UnixStream;

use refault_vfio_user::request::{DmaMap, DmaUnmap, RegionAccess};

use crate::client::*;
use crate::recorder::{BAR_SIZE, CONFIG_SIZE, Call, Recorder, VECTORS};

fn ram(address: u64, size: u64) -> DmaMap {
    DmaMap { address, size, offset: 0, readable: true, writable: true }
}

#[test]
fn a_client_that_starts_as_qemu_does_is_served() {
    let function = Recorder::new();
    let mut client = Client::silent(&function);
    assert_eq!(client.succeed(VERSION, &greeting())[..4], [0; 4]);
    let answer = client.ask(DMA_MAP, &map(0x10_0000, 0x1000), &[memory(0x5a)]);
    assert_eq!((answer.flags, answer.payload.len()), (REPLY, 0));
    assert_eq!(client.succeed(GET_INFO, &bytes![16u32, 0u32, 0u32, 0u32]), bytes![16u32, 3u32, 9u32, 5u32]);
    for (index, size) in [(0u32, BAR_SIZE), (1, 0), (6, 0), (7, CONFIG_SIZE), (8, 0)] {
        let info = client.succeed(GET_REGION_INFO, &bytes![32u32, 0u32, index, 0u32, 0u64, 0u64]);
        assert_eq!(info[8..12], index.to_le_bytes());
        assert_eq!(info[16..24], size.to_le_bytes(), "region {index}");
    }
    for (index, count) in [(0u32, 0), (1, 0), (2, VECTORS), (3, 1), (4, 0)] {
        let info = client.succeed(GET_IRQ_INFO, &bytes![16u32, 0u32, index, 0u32]);
        assert_eq!(info, bytes![16u32, 1u32, index, count], "without an error interrupt QEMU complains");
    }
    client.part();
    assert_eq!(function.calls(), [Call::Map(ram(0x10_0000, 0x1000), Some(0x5a))]);
}

#[test]
fn a_load_returns_what_was_stored() {
    let function = Recorder::new();
    let mut client = Client::greeted(&function);
    let data = 0x0123_4567_89ab_cdefu64.to_le_bytes();
    assert_eq!(
        client.succeed(REGION_WRITE, &store(0, 0x80, &data)),
        access(0, 0x80, 8),
        "no data comes back"
    );
    assert_eq!(client.succeed(REGION_READ, &access(0, 0x80, 8)), store(0, 0x80, &data));
    assert_eq!(client.succeed(REGION_READ, &access(0, 0x84, 2)), store(0, 0x84, &data[4..6]));
    client.part();
}

#[test]
fn config_space_is_read_in_one_piece() {
    let mut client = Client::greeted(&Recorder::new());
    let config = client.succeed(REGION_READ, &access(7, 0, 4096));
    assert_eq!(config[..16], access(7, 0, 4096));
    assert_eq!(config[16..], [0xc7; 4096]);
    client.part();
}

#[test]
fn a_bar_takes_accesses_of_at_most_8_bytes() {
    let mut client = Client::greeted(&Recorder::new());
    assert_eq!(client.fail(REGION_READ, &access(0, 0, 9), &[]), EINVAL);
    assert_eq!(client.fail(REGION_WRITE, &store(0, 0, &[0; 16]), &[]), EINVAL);
    client.part();
}

#[test]
fn a_posted_store_is_performed_without_a_reply() {
    let function = Recorder::new();
    let mut client = Client::greeted(&function);
    client.post(REGION_WRITE, &store(0, 0x10, &[7]), &[]);
    client.post(REGION_WRITE, &store(0, BAR_SIZE, &[7]), &[]);
    assert_eq!(client.succeed(REGION_READ, &access(0, 0x10, 1))[16], 7, "the load sees the store");
    client.part();
    let written = RegionAccess { region: 0, offset: 0x10, count: 1 };
    assert_eq!(function.calls()[0], Call::Write(written, vec![7], true));
}

#[test]
fn an_error_of_the_function_is_passed_on_and_the_session_continues() {
    let mut client = Client::greeted(&Recorder::new());
    assert_eq!(client.fail(DMA_MAP, &map(crate::recorder::TAKEN, 0x1000), &[]), 17);
    client.succeed(DMA_MAP, &map(0, 0x1000));
    client.part();
}

#[test]
fn an_unmap_gets_its_reply_after_the_function_has_let_go() {
    let function = Recorder::new();
    let mut client = Client::greeted(&function);
    let range = bytes![24u32, 0u32, 0x1000u64, 0x2000u64];
    assert_eq!(client.succeed(DMA_UNMAP, &range), range);
    let gone = DmaUnmap { address: 0x1000, size: 0x2000, all: false };
    assert_eq!(function.calls(), [Call::Unmap(gone)], "before the client gets its reply");
    client.succeed(DMA_UNMAP, &bytes![24u32, 2u32, 0u64, 0u64]);
    assert_eq!(function.calls(), [Call::Unmap(DmaUnmap { address: 0, size: 0, all: true })]);
    client.part();
}

#[test]
fn a_reset_may_come_twice() {
    let function = Recorder::new();
    let mut client = Client::greeted(&function);
    assert!(client.succeed(RESET, &[]).is_empty());
    client.succeed(RESET, &[]);
    client.part();
    assert_eq!(function.calls(), [Call::Reset, Call::Reset]);
}

#[test]
fn vectors_get_one_event_each_up_to_the_limit_of_a_message() {
    let function = Recorder::new();
    let mut client = Client::greeted(&function);
    let events: Vec<_> = (0..16).map(memory).collect();
    assert_eq!(client.ask(SET_IRQS, &irqs(0x24, 2, 4, 16), &events).flags, REPLY);
    assert_eq!(function.calls(), [Call::Vectors(4, vec![true; 16])]);
    client.part();
}

#[test]
fn vectors_are_disconnected_by_a_change_without_events() {
    let function = Recorder::new();
    let mut client = Client::greeted(&function);
    client.succeed(SET_IRQS, &irqs(0x24, 2, 3, 2));
    assert_eq!(function.calls(), [Call::Vectors(3, vec![false; 2])]);
    client.succeed(SET_IRQS, &irqs(0x21, 2, 0, 0));
    assert_eq!(function.calls(), [Call::Vectors(0, vec![false; VECTORS as usize])]);
    client.part();
}

#[test]
fn an_error_interrupt_is_accepted_and_ignored() {
    let function = Recorder::new();
    let mut client = Client::greeted(&function);
    assert_eq!(client.ask(SET_IRQS, &irqs(0x24, 3, 0, 1), &[memory(0)]).flags, REPLY);
    assert_eq!(function.calls(), []);
    client.part();
}

#[test]
fn replies_to_the_server_reach_the_function_and_get_no_reply() {
    let function = Recorder::new();
    let client = Client::greeted(&function);
    send(&client.stream, &message(7, 12, REPLY, &bytes![0xfee0_0000u64, 4u64]), &[]);
    let refused = bytes![8u16, 12u16, 16u32, REFUSED, 19u32];
    send(&client.stream, &refused, &[]);
    client.part();
    assert_eq!(function.calls(), [Call::Replied(7, None), Call::Replied(8, Some(19))]);
}

/// Everything is in the socket before the session reads it: a read of more than a header would get a later message's
/// descriptor together with this message's bytes.
#[test]
fn a_burst_of_posted_maps_keeps_each_file_with_its_message() {
    const BURST: u8 = 100;
    let function = Recorder::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    send(&ours, &message(1, VERSION, WAITS, &greeting()), &[]);
    for mark in 0..BURST {
        // Every seventh has no file, as for a ROM.
        let files = if mark % 7 == 3 { vec![] } else { vec![memory(mark)] };
        send(&ours, &message(2, DMA_MAP, POSTED, &map(u64::from(mark) << 12, 0x1000)), &files);
    }
    let mut client = Client::beside(ours, theirs, &function);
    assert_eq!(next(&client.stream).map(|answer| answer.id), Some(1));
    client.succeed(GET_INFO, &[0; 16]);
    client.part();
    let expected = |mark: u8| {
        let file = (mark % 7 != 3).then_some(mark);
        Call::Map(ram(u64::from(mark) << 12, 0x1000), file)
    };
    assert_eq!(function.calls(), (0..BURST).map(expected).collect::<Vec<_>>());
}
