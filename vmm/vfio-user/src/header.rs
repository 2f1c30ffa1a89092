//! The header of every message: id, command, size with the header, flags, error number; little endian on every machine
//! that refault runs on.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a header.
pub const HEADER_SIZE: usize = 16;

/// The low four bits of the flags: 0 for a request, 1 for a reply.
const TYPE: u32 = 0xf;
const REPLY: u32 = 1;
/// The sender wants no reply: a posted write.
const NO_REPLY: u32 = 1 << 4;
/// The reply is an error, and the last field says which.
const ERROR: u32 = 1 << 5;

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Chosen by who asks; a reply has its request's.
    pub id: u16,
    /// Which command.
    pub command: u16,
    /// Bytes of the whole message, this header included.
    pub size: u32,
    flags: u32,
    error: u32,
}

impl Header {
    /// Of a request that wants a reply.
    pub const fn request(id: u16, command: u16, payload: usize) -> Self {
        Self { id, command, size: (HEADER_SIZE + payload) as u32, flags: 0, error: 0 }
    }

    /// The same, without a reply.
    pub const fn posted(self) -> Self {
        Self { flags: self.flags | NO_REPLY, ..self }
    }

    /// Of the reply to a request.
    pub const fn reply(self, payload: usize) -> Self {
        Self { size: (HEADER_SIZE + payload) as u32, flags: REPLY, error: 0, ..self }
    }

    /// Of a reply that refuses, with Linux' error number.
    pub const fn refusal(self, errno: u32) -> Self {
        Self { size: HEADER_SIZE as u32, flags: REPLY | ERROR, error: errno, ..self }
    }

    /// Whether it is a reply; none if it is neither that nor a request.
    pub const fn is_reply(self) -> Option<bool> {
        match self.flags & TYPE {
            0 => Some(false),
            REPLY => Some(true),
            _ => None,
        }
    }

    /// Whether the sender waits for no reply.
    pub const fn is_posted(self) -> bool {
        self.flags & NO_REPLY != 0
    }

    /// The error number of a reply that is an error.
    pub const fn error(self) -> Option<u32> {
        if self.flags & ERROR != 0 { Some(self.error) } else { None }
    }

    /// Bytes behind the header; none if the size is less than the header's own.
    pub const fn payload(self) -> Option<usize> {
        (self.size as usize).checked_sub(HEADER_SIZE)
    }
}
