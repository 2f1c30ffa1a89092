//! Invalid requests: each gets its error number, and the session continues.

use refault_vfio_user::session::SessionError;

use crate::client::*;
use crate::recorder::{BAR_SIZE, Recorder, VECTORS};

#[test]
fn an_unknown_command_is_not_supported() {
    let mut client = Client::greeted(&Recorder::new());
    for command in [0, 6, 11, 12, 14, 99, u16::MAX] {
        assert_eq!(client.fail(command, &[1, 2, 3], &[]), ENOTSUP);
    }
    client.part();
}

#[test]
fn a_session_begins_with_the_version() {
    let function = Recorder::new();
    let client = Client::silent(&function);
    send(&client.stream, &message(1, GET_INFO, WAITS, &[0; 16]), &[]);
    let (rest, end) = client.leave();
    assert_eq!(rest, []);
    assert!(matches!(end, Err(SessionError::NoVersion(GET_INFO))));
    assert_eq!(function.calls(), []);
}

#[test]
fn a_malformed_version_does_not_count() {
    let client = Client::silent(&Recorder::new());
    send(&client.stream, &message(1, VERSION, WAITS, &[0]), &[]);
    assert!(matches!(client.leave(), (rest, Err(SessionError::NoVersion(VERSION))) if rest.is_empty()));
}

#[test]
fn another_major_version_is_another_protocol() {
    let client = Client::silent(&Recorder::new());
    send(&client.stream, &message(1, VERSION, WAITS, &bytes![1u16, 0u16]), &[]);
    let (rest, end) = client.leave();
    assert_eq!(rest, []);
    let error = end.unwrap_err();
    assert!(error.to_string().contains("1.0"), "{error}");
}

#[test]
fn a_session_has_one_version_exchange() {
    let mut client = Client::greeted(&Recorder::new());
    assert_eq!(client.fail(VERSION, &greeting(), &[]), EINVAL);
    client.succeed(GET_INFO, &bytes![16u32, 0u32, 0u32, 0u32]);
    client.part();
}

#[test]
fn a_later_minor_version_is_served() {
    let mut client = Client::silent(&Recorder::new());
    assert_eq!(client.succeed(VERSION, &bytes![0u16, 9u16])[..4], [0; 4]);
    client.part();
}

#[test]
fn a_map_has_one_file_at_most() {
    let function = Recorder::new();
    let mut client = Client::greeted(&function);
    assert_eq!(client.fail(DMA_MAP, &map(0, 0x1000), &[memory(1), memory(2)]), EINVAL);
    assert_eq!(function.calls(), [], "neither of them is guest memory");
    client.part();
}

#[test]
fn an_access_ends_with_its_region() {
    let function = Recorder::new();
    let mut client = Client::greeted(&function);
    for region in [0, 7] {
        for (offset, count) in [
            (BAR_SIZE - 3, 4),
            (BAR_SIZE, 1),
            (0, BAR_SIZE as u32 + 1),
            (u64::MAX - 8, 8),
            (u64::MAX - 7, 8),
            (u64::MAX, 1),
            (0, 0),
        ] {
            assert_eq!(client.fail(REGION_READ, &access(region, offset, count), &[]), EINVAL);
            let data = vec![0; count as usize];
            assert_eq!(client.fail(REGION_WRITE, &store(region, offset, &data), &[]), EINVAL);
        }
        assert_eq!(client.fail(REGION_READ, &access(region, 0, u32::MAX), &[]), E2BIG);
    }
    assert_eq!(function.calls(), []);
    client.succeed(REGION_READ, &access(0, BAR_SIZE - 4, 4));
    client.part();
}

#[test]
fn a_missing_region_cannot_be_accessed() {
    let mut client = Client::greeted(&Recorder::new());
    for region in [1, 6, 8, 9, 0x100, 0x107, u32::MAX] {
        assert_eq!(client.fail(REGION_READ, &access(region, 0, 1), &[]), EINVAL);
        assert_eq!(client.fail(REGION_WRITE, &store(region, 0, &[0]), &[]), EINVAL);
    }
    for index in [9u32, u32::MAX] {
        assert_eq!(client.fail(GET_REGION_INFO, &bytes![32u32, 0u32, index, 0u32, 0u64, 0u64], &[]), EINVAL);
        assert_eq!(client.fail(GET_IRQ_INFO, &bytes![16u32, 0u32, index, 0u32], &[]), EINVAL);
    }
    client.part();
}

#[test]
fn interrupts_need_one_event_for_each_existing_vector() {
    let function = Recorder::new();
    let mut client = Client::greeted(&function);
    let events = |count| (0..count).map(memory).collect::<Vec<_>>();
    // More vectors than events, and fewer.
    assert_eq!(client.fail(SET_IRQS, &irqs(0x24, 2, 0, 3), &events(2)), EINVAL);
    assert_eq!(client.fail(SET_IRQS, &irqs(0x24, 2, 0, 1), &events(2)), EINVAL);
    assert_eq!(client.fail(SET_IRQS, &irqs(0x24, 2, 0, 0), &events(1)), EINVAL);
    // More vectors than exist.
    assert_eq!(client.fail(SET_IRQS, &irqs(0x24, 2, VECTORS, 1), &events(1)), EINVAL);
    assert_eq!(client.fail(SET_IRQS, &irqs(0x24, 2, 0, VECTORS + 1), &[]), EINVAL);
    assert_eq!(client.fail(SET_IRQS, &irqs(0x24, 2, u32::MAX, 1), &events(1)), EINVAL);
    assert_eq!(client.fail(SET_IRQS, &irqs(0x24, 2, u32::MAX - 1, 1), &events(1)), EINVAL);
    // Kinds without vectors, and kinds that do not exist.
    for index in [0, 1, 4, 5, u32::MAX] {
        assert_eq!(client.fail(SET_IRQS, &irqs(0x24, index, 0, 1), &events(1)), EINVAL);
    }
    assert_eq!(client.fail(SET_IRQS, &irqs(0x24, 2, 0, 1)[..19], &events(1)), EINVAL);
    assert_eq!(function.calls(), []);
    client.part();
}

#[test]
fn vectors_are_not_masked_or_raised_by_the_client() {
    let function = Recorder::new();
    let mut client = Client::greeted(&function);
    for flags in [0x09, 0x11, 0x0c, 0x14, 0x21] {
        assert_eq!(client.fail(SET_IRQS, &irqs(flags, 2, 0, 1), &[]), ENOTSUP, "{flags:#x}");
    }
    assert_eq!(function.calls(), []);
    client.part();
}

#[test]
fn an_invalid_posted_request_gets_no_reply_either() {
    let mut client = Client::greeted(&Recorder::new());
    client.post(99, &[], &[]);
    client.post(DMA_MAP, &[0; 31], &[memory(0)]);
    client.post(REGION_READ, &access(0, u64::MAX, 1), &[]);
    client.succeed(GET_INFO, &[0; 16]);
    client.part();
}
