//! Messages on a socket, with the file descriptors that accompany them.

use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use thiserror::Error;
use zerocopy::FromBytes;

use crate::header::{HEADER_SIZE, Header};
use crate::request::{FDS_MAX, PAYLOAD_MAX};

/// How long a client may leave sent data unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no further message can be received from a client.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// Reading the socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The client closed the connection in the middle of a message.
    #[error("the client closed the connection in the middle of a message")]
    Cut,
    /// The size in the header is out of range.
    #[error("a message of {size} bytes: expected {HEADER_SIZE} to {}", HEADER_SIZE + PAYLOAD_MAX)]
    Size {
        /// The size in the header, in bytes.
        size: u32,
    },
    /// The type in the flags is neither request nor reply.
    #[error("a message that is neither a request nor a reply: {0:?}")]
    Kind(Header),
    /// More file descriptors than were negotiated.
    #[error("a message with more than {FDS_MAX} file descriptors")]
    FileDescriptors,
}

/// A received message.
#[derive(Debug)]
pub struct Message {
    /// The header; its size matches the payload.
    pub header: Header,
    /// Whether it replies to a request of ours.
    pub reply: bool,
    /// The bytes after the header.
    pub payload: Vec<u8>,
    /// Its file descriptors, at most [`FDS_MAX`].
    pub fds: Vec<OwnedFd>,
}

/// One client's socket. One thread receives; any thread may send.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    sending: Mutex<()>,
}

impl Connection {
    /// Takes ownership of a connected socket.
    ///
    /// # Errors
    /// The send timeout cannot be set.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        Self::with_timeout(stream, SEND_TIMEOUT)
    }

    fn with_timeout(stream: UnixStream, timeout: Duration) -> io::Result<Self> {
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { stream, sending: Mutex::default() })
    }

    /// Receives the next message; `None` when the client has closed the connection.
    ///
    /// # Errors
    /// The bytes are not a valid message. Where the next one begins is then unknown, so the connection cannot be used any
    /// further.
    pub fn receive(&self) -> Result<Option<Message>, ConnectionError> {
        let mut bytes = [0; HEADER_SIZE];
        let mut fds = Vec::new();
        let mut filled = 0;
        // Read the header alone: a longer read could also take the next message's file descriptors.
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.receive_some(rest, &mut fds)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(ConnectionError::Cut),
                count => filled += count,
            }
        }
        let header = Header::read_from_bytes(&bytes).map_err(|_| ConnectionError::Cut)?;
        let size = header.payload().filter(|size| *size <= PAYLOAD_MAX);
        let size = size.ok_or(ConnectionError::Size { size: header.size })?;
        let reply = header.is_reply().ok_or(ConnectionError::Kind(header))?;
        let mut payload = vec![0; size];
        (&self.stream).read_exact(&mut payload).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ConnectionError::Cut,
            _ => ConnectionError::Socket(error),
        })?;
        Ok(Some(Message { header, reply, payload, fds }))
    }

    fn receive_some(&self, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize, ConnectionError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut slices = [IoSliceMut::new(bytes)];
            match recvmsg(&self.stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                received => break received.map_err(|error| ConnectionError::Socket(error.into()))?,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > FDS_MAX {
            return Err(ConnectionError::FileDescriptors);
        }
        Ok(received.bytes)
    }

    /// Sends one whole message.
    ///
    /// # Errors
    /// The client is gone, or has read nothing for ten seconds. The connection is then closed: part of the message may have
    /// been sent, and a later message would be taken for the rest of it.
    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.stream).write_all(message).inspect_err(|_| self.close())
    }

    /// Closes the connection and ends a waiting [`Self::receive`].
    pub fn close(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    #[test]
    fn sending_to_a_client_that_reads_nothing_times_out() {
        let (_client, ours) = UnixStream::pair().unwrap();
        let connection = Connection::with_timeout(ours, SHORT).unwrap();
        let begin = Instant::now();
        let error = (0..1000).find_map(|_| connection.send(&[0; 1 << 20]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(begin.elapsed() >= SHORT);
    }

    #[test]
    fn nothing_is_sent_after_a_partial_message() {
        let (mut client, ours) = UnixStream::pair().unwrap();
        let connection = Connection::with_timeout(ours, SHORT).unwrap();
        let size = 16 << 20;
        assert!(connection.send(&vec![1; size]).is_err(), "larger than any socket's buffer");
        let mut first = vec![0; 1 << 10];
        client.read_exact(&mut first).unwrap();
        assert!(connection.send(&[2; 16]).is_err(), "though there is room now");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(first.len() + rest.len() < size && !rest.contains(&2));
        assert!(matches!(connection.receive(), Ok(None)), "receiving has ended as well");
    }

    #[test]
    fn closing_wakes_a_waiting_receive() {
        let (_client, ours) = UnixStream::pair().unwrap();
        let connection = Connection::new(ours).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| connection.receive());
            std::thread::sleep(SHORT);
            connection.close();
            assert!(matches!(waiting.join(), Ok(Ok(None))));
        });
    }
}
