//! A client that builds every byte by hand and uses none of the crate's types.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use refault_vfio_user::connection::Connection;
use refault_vfio_user::session::{SessionError, serve};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::recorder::Recorder;

pub(crate) const VERSION: u16 = 1;
pub(crate) const DMA_MAP: u16 = 2;
pub(crate) const DMA_UNMAP: u16 = 3;
pub(crate) const GET_INFO: u16 = 4;
pub(crate) const GET_REGION_INFO: u16 = 5;
pub(crate) const GET_IRQ_INFO: u16 = 7;
pub(crate) const SET_IRQS: u16 = 8;
pub(crate) const REGION_READ: u16 = 9;
pub(crate) const REGION_WRITE: u16 = 10;
pub(crate) const RESET: u16 = 13;

/// Flags of a request: the sender waits for a reply, or does not.
pub(crate) const WAITS: u32 = 0;
pub(crate) const POSTED: u32 = 0x10;
/// Flags of a reply, and of an error reply.
pub(crate) const REPLY: u32 = 1;
pub(crate) const REFUSED: u32 = 0x21;

pub(crate) const EINVAL: u32 = 22;
pub(crate) const E2BIG: u32 = 7;
pub(crate) const ENOTSUP: u32 = 95;

/// The little-endian bytes of a sequence of fields.
macro_rules! bytes {
    ($($field:expr),* $(,)?) => { [$(&$field.to_le_bytes()[..]),*].concat() };
}
pub(crate) use bytes;

/// A message: header and payload.
pub(crate) fn message(id: u16, command: u16, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = bytes![id, command, 16 + payload.len() as u32, flags, 0u32];
    [header, payload.to_vec()].concat()
}

/// A version 0.0 request as QEMU sends it.
pub(crate) fn greeting() -> Vec<u8> {
    let json = br#"{"capabilities":{"max_msg_fds":16,"pgsizes":4096,"write_multiple":true}}"#;
    [&[0; 4], &json[..], &[0]].concat()
}

pub(crate) fn map(address: u64, size: u64) -> Vec<u8> {
    bytes![32u32, 3u32, 0u64, address, size]
}

pub(crate) fn access(region: u32, offset: u64, count: u32) -> Vec<u8> {
    bytes![offset, region, count]
}

pub(crate) fn store(region: u32, offset: u64, data: &[u8]) -> Vec<u8> {
    [access(region, offset, data.len() as u32), data.to_vec()].concat()
}

pub(crate) fn irqs(flags: u32, index: u32, start: u32, count: u32) -> Vec<u8> {
    bytes![20u32, flags, index, start, count]
}

/// A memfd that begins with `mark`.
pub(crate) fn memory(mark: u8) -> File {
    let fd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(fd);
    file.write_all(&[mark; 4096]).unwrap();
    file
}

/// Sends bytes, with file descriptors on the first of them.
pub(crate) fn send(stream: &UnixStream, bytes: &[u8], files: &[File]) {
    let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(sent, bytes.len());
}

/// A reply: the five header fields and the payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) id: u16,
    pub(crate) command: u16,
    pub(crate) flags: u32,
    pub(crate) error: u32,
    pub(crate) payload: Vec<u8>,
}

/// Receives the next message; `None` at the end of the stream.
pub(crate) fn next(mut stream: &UnixStream) -> Option<Answer> {
    let mut header = [0; 16];
    match stream.read(&mut header[..1]) {
        Ok(1) => stream.read_exact(&mut header[1..]).unwrap(),
        Ok(_) => return None,
        // The other end was closed before it read everything we sent.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
        Err(error) => panic!("no message arrives: {error}"),
    }
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
    let mut payload = vec![0; word(4) as usize - 16];
    stream.read_exact(&mut payload).unwrap();
    Some(Answer { id: half(0), command: half(2), flags: word(8), error: word(12), payload })
}

/// A client, and the session that serves it on a thread of its own.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    session: JoinHandle<Result<(), SessionError>>,
    id: u16,
}

impl Client {
    /// A client that has sent nothing yet.
    pub(crate) fn silent(function: &Arc<Recorder>) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        Self::beside(ours, theirs, function)
    }

    /// A client that sent data before the session started to read.
    pub(crate) fn beside(stream: UnixStream, theirs: UnixStream, function: &Arc<Recorder>) -> Self {
        // A server that does not reply fails the test, rather than blocking it forever.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let function = function.clone();
        let session = std::thread::spawn(move || serve(&Connection::new(theirs).unwrap(), &*function));
        Self { stream, session, id: 0x4100 }
    }

    /// A client that has exchanged versions.
    pub(crate) fn greeted(function: &Arc<Recorder>) -> Self {
        let mut client = Self::silent(function);
        client.succeed(VERSION, &greeting());
        client
    }

    /// Sends a request and waits for the reply.
    pub(crate) fn ask(&mut self, command: u16, payload: &[u8], files: &[File]) -> Answer {
        self.id += 1;
        send(&self.stream, &message(self.id, command, WAITS, payload), files);
        let answer = next(&self.stream).expect("the session continues");
        assert_eq!((answer.id, answer.command), (self.id, command), "the reply is to this request");
        answer
    }

    /// Sends a request that must succeed; returns the reply's payload.
    pub(crate) fn succeed(&mut self, command: u16, payload: &[u8]) -> Vec<u8> {
        let answer = self.ask(command, payload, &[]);
        assert_eq!((answer.flags, answer.error), (REPLY, 0));
        answer.payload
    }

    /// Sends a request that must be refused; returns the error number.
    pub(crate) fn fail(&mut self, command: u16, payload: &[u8], files: &[File]) -> u32 {
        let answer = self.ask(command, payload, files);
        assert_eq!((answer.flags, answer.payload.len()), (REFUSED, 0), "{answer:?}");
        answer.error
    }

    /// Sends a posted request.
    pub(crate) fn post(&mut self, command: u16, payload: &[u8], files: &[File]) {
        self.id += 1;
        send(&self.stream, &message(self.id, command, POSTED, payload), files);
    }

    /// Closes the connection; returns the unread messages and the result of the session.
    pub(crate) fn leave(self) -> (Vec<Answer>, Result<(), SessionError>) {
        self.stream.shutdown(Shutdown::Write).unwrap();
        let rest = std::iter::from_fn(|| next(&self.stream)).collect();
        (rest, self.session.join().expect("the session does not panic"))
    }

    /// Closes a session without errors and without unread messages.
    pub(crate) fn part(self) {
        let (rest, end) = self.leave();
        assert_eq!(rest, []);
        end.unwrap();
    }
}
