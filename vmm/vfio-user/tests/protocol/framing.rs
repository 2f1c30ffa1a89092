//! Where one message ends and the next begins, and what happens when that cannot be determined.

use std::fs::File;
use std::io::Write;

use refault_vfio_user::connection::ConnectionError;
use refault_vfio_user::request::{DATA_MAX, PAYLOAD_MAX};
use refault_vfio_user::session::SessionError;

use crate::client::*;
use crate::recorder::{Call, Recorder};

/// How a session ends after the version exchange when these are the last bytes.
fn end_after(bytes: &[u8], files: &[File]) -> ConnectionError {
    let client = Client::greeted(&Recorder::new());
    send(&client.stream, bytes, files);
    let (rest, end) = client.leave();
    assert_eq!(rest, []);
    match end.unwrap_err() {
        SessionError::Connection(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn messages_may_come_byte_by_byte() {
    let function = Recorder::new();
    let client = Client::greeted(&function);
    let file = [memory(0x77)];
    let load = message(10, REGION_READ, WAITS, &access(0, 8, 8));
    let map = message(11, DMA_MAP, WAITS, &map(0x1000, 0x1000));
    for (message, files) in [(&load, &[][..]), (&map, &file[..]), (&load, &[])] {
        send(&client.stream, &message[..1], files);
        for byte in &message[1..] {
            std::thread::yield_now();
            send(&client.stream, &[*byte], &[]);
        }
    }
    let (rest, end) = client.leave();
    assert_eq!(
        rest.iter().map(|answer| (answer.id, answer.flags)).collect::<Vec<_>>(),
        [(10, REPLY), (11, REPLY), (10, REPLY)]
    );
    end.unwrap();
    assert!(matches!(function.calls()[1], Call::Map(_, Some(0x77))));
}

#[test]
fn messages_may_come_all_at_once() {
    let client = Client::greeted(&Recorder::new());
    let load = message(10, REGION_READ, WAITS, &access(0, 8, 8));
    send(&client.stream, &load.repeat(50), &[]);
    let (rest, end) = client.leave();
    assert_eq!(rest.len(), 50);
    end.unwrap();
}

#[test]
fn a_client_may_disconnect_between_messages_but_not_within_one() {
    Client::greeted(&Recorder::new()).part();
    Client::silent(&Recorder::new()).part();
    let load = message(10, REGION_READ, WAITS, &access(0, 8, 8));
    for length in [1, 15, 16, 17, load.len() - 1] {
        assert!(matches!(end_after(&load[..length], &[]), ConnectionError::Cut), "{length} bytes");
    }
}

#[test]
fn an_invalid_size_ends_the_session_without_waiting_for_more_bytes() {
    for size in [0, 15, 16 + PAYLOAD_MAX as u32 + 1, u32::MAX] {
        let client = Client::greeted(&Recorder::new());
        send(&client.stream, &bytes![1u16, GET_INFO, size, WAITS, 0u32], &[]);
        // The session ends although the client is still connected: it does not wait for the bytes.
        assert_eq!(next(&client.stream), None);
        let (_, end) = client.leave();
        let error = end.unwrap_err();
        assert!(matches!(
            error,
            SessionError::Connection(ConnectionError::Size { size: found }) if found == size
        ));
    }
}

#[test]
fn the_largest_message_is_taken() {
    let mut client = Client::greeted(&Recorder::new());
    let largest = message(20, REGION_WRITE, WAITS, &store(7, 0, &vec![0; DATA_MAX]));
    client.stream.write_all(&largest).unwrap();
    let answer = next(&client.stream).unwrap();
    assert_eq!((answer.id, answer.error), (20, EINVAL), "accepted as a message; its region is smaller");
    client.stream.write_all(&message(21, 99, WAITS, &vec![0; PAYLOAD_MAX])).unwrap();
    assert_eq!(next(&client.stream).unwrap().error, ENOTSUP);
    client.part();
}

#[test]
fn a_message_that_is_neither_request_nor_reply_ends_the_session() {
    for flags in [2, 3, 0xf, 0x12] {
        let error = end_after(&message(1, GET_INFO, flags, &[0; 16]), &[]);
        assert!(matches!(error, ConnectionError::Kind(_)), "{error}");
    }
}

#[test]
fn more_than_16_files_end_the_session() {
    let load = message(10, REGION_READ, WAITS, &access(0, 8, 8));
    for count in [17, 18, 64] {
        let files: Vec<_> = (0..count).map(memory).collect();
        assert!(matches!(end_after(&load, &files), ConnectionError::FileDescriptors), "{count}");
    }
}

#[test]
fn files_in_parts_of_one_header_are_counted_together() {
    let client = Client::greeted(&Recorder::new());
    let load = message(10, REGION_READ, WAITS, &access(0, 8, 8));
    let files: Vec<_> = (0..9).map(memory).collect();
    send(&client.stream, &load[..1], &files);
    send(&client.stream, &load[1..2], &files);
    let (_, end) = client.leave();
    assert!(matches!(end, Err(SessionError::Connection(ConnectionError::FileDescriptors))));
}

#[test]
fn unrequested_files_are_closed_and_the_request_is_served() {
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut client = Client::greeted(&Recorder::new());
    let writer = File::from(std::os::fd::OwnedFd::from(writer));
    assert_eq!(client.ask(GET_INFO, &[0; 16], &[writer]).flags, REPLY);
    // Its last copy is closed: ours with the slice, the session's with the message.
    reader.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    assert_eq!(next(&reader), None);
    client.part();
}
