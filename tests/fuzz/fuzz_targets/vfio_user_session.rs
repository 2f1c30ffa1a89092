//! Whole sessions. The input is a sequence of messages: a command, how it is sent, the length of its payload, and the
//! payload. Each request that expects a reply must get one, in order, until the session ends.
#![no_main]

use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use refault_vfio_user::RequestError;
use refault_vfio_user::connection::Connection;
use refault_vfio_user::function::{CONFIG, VfioUserFunction};
use refault_vfio_user::request::{DmaMap, DmaUnmap, RegionAccess};
use refault_vfio_user::session::serve;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Most messages: they and their replies fit into a socket, because neither side reads while the other writes.
const MESSAGES: u16 = 64;
/// Most file descriptors in flight that a user may have.
const FILES_MAX: usize = 512;
const BAR_SIZE: u64 = 0x1000;
const CONFIG_SIZE: u64 = 0x100;
const VECTORS: u32 = 20;

/// How a message is sent: the lowest bits are the number of its files.
const FILES: u8 = 0x1f;
const POSTED: u8 = 0x20;
const REPLY: u8 = 0x40;
/// Its first byte alone, with the files.
const SPLIT: u8 = 0x80;

/// A function that accepts everything, and checks that it is within bounds.
struct Anything;

impl Anything {
    fn check(access: RegionAccess, length: usize) {
        let size = if access.region == CONFIG { CONFIG_SIZE } else { BAR_SIZE };
        assert!(access.region == CONFIG || access.region == 0 && length <= 8);
        assert!(length == access.count as usize && access.offset + length as u64 <= size);
    }
}

impl VfioUserFunction for Anything {
    fn region_size(&self, index: u32) -> u64 {
        match index {
            0 => BAR_SIZE,
            CONFIG => CONFIG_SIZE,
            _ => 0,
        }
    }

    fn vectors(&self) -> u32 {
        VECTORS
    }

    fn read(&self, access: RegionAccess, data: &mut [u8]) -> Result<(), RequestError> {
        Self::check(access, data.len());
        Ok(())
    }

    fn write(&self, access: RegionAccess, data: &[u8], _posted: bool) -> Result<(), RequestError> {
        Self::check(access, data.len());
        Ok(())
    }

    fn map(&self, map: DmaMap, _file: Option<File>) -> Result<(), RequestError> {
        if map.address & 0x1000 == 0 { Ok(()) } else { Err(RequestError::Exists) }
    }

    fn unmap(&self, _unmap: DmaUnmap) -> Result<(), RequestError> {
        Ok(())
    }

    fn set_vectors(&self, start: u32, events: Vec<Option<OwnedFd>>) -> Result<(), RequestError> {
        assert!(start as usize + events.len() <= VECTORS as usize);
        Ok(())
    }

    fn reset(&self) {}

    fn replied(&self, _id: u16, _error: Option<u32>) {}
}

fn message(id: u16, command: u16, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = 16 + payload.len() as u32;
    let (id, command, size) = (id.to_le_bytes(), command.to_le_bytes(), size.to_le_bytes());
    [&id[..], &command, &size, &flags.to_le_bytes(), &[0; 4], payload].concat()
}

fn send(stream: &UnixStream, bytes: &[u8], files: usize) {
    static FILE: OnceLock<File> = OnceLock::new();
    let file = FILE.get_or_init(|| File::open("/dev/null").expect("there is a /dev/null"));
    let fds: Vec<BorrowedFd<'_>> = (0..files).map(|_| file.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(31))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
    assert_eq!(sent, Ok(bytes.len()));
}

fuzz_target!(|input: &[u8]| {
    let (mut client, server) = UnixStream::pair().expect("a socket");
    // Ids count up from the greeting, which is 0.
    send(&client, &message(0, 1, 0, &[0; 4]), 0);
    let mut waiting = vec![0u16];
    let (mut input, mut left) = (input, FILES_MAX);
    for id in 1..MESSAGES {
        let Some((&[command, how, length], rest)) = input.split_first_chunk() else { break };
        let (payload, rest) = rest.split_at(rest.len().min(length.into()));
        input = rest;
        let flags = u32::from(how & REPLY != 0) | if how & POSTED != 0 { 0x10 } else { 0 };
        let bytes = message(id, command.into(), flags, payload);
        let first = if how & SPLIT != 0 { 1 } else { bytes.len() };
        let files = left.min((how & FILES).into());
        left -= files;
        send(&client, &bytes[..first], files);
        if first < bytes.len() {
            send(&client, &bytes[first..], 0);
        }
        if how & (REPLY | POSTED) == 0 {
            waiting.push(id);
        }
    }
    // The rest is sent as raw bytes.
    if !input.is_empty() {
        send(&client, input, 0);
    }
    client.shutdown(Shutdown::Write).expect("the socket is open");
    let connection = Connection::new(server).expect("the socket is open");
    let end = serve(&connection, &Anything);
    drop(connection);
    let mut answers = Vec::new();
    let mut header = [0; 16];
    while client.read_exact(&mut header).is_ok() {
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let mut payload = vec![0; size as usize - 16];
        client.read_exact(&mut payload).expect("a whole answer");
        assert_eq!(header[8] & 0x1f, 1, "an answer");
        answers.push(u16::from_le_bytes([header[0], header[1]]));
    }
    let count = answers.len().min(waiting.len());
    assert_eq!(answers[..count], waiting[..count]);
    if end.is_ok() {
        assert!(answers.len() >= waiting.len());
    }
});
