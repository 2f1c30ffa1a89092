//! The header of every message: id, command, size including the header, flags, error number. All fields are little-endian,
//! as is every machine that refault runs on.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size of a header in bytes.
pub const HEADER_SIZE: usize = 16;

/// The low four bits of the flags: 0 for a request, 1 for a reply.
const TYPE: u32 = 0xf;
const REPLY: u32 = 1;
/// The sender expects no reply: a posted write.
const NO_REPLY: u32 = 1 << 4;
/// The reply is an error, with the error number in the last field.
const ERROR: u32 = 1 << 5;

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// Chosen by the requester; a reply repeats the id of its request.
    pub id: u16,
    /// Number of the command, as in [`crate::request::command`].
    pub command: u16,
    /// Size of the whole message in bytes, including this header.
    pub size: u32,
    flags: u32,
    error: u32,
}

impl Header {
    /// The header of a request that expects a reply, with `payload` bytes after it.
    pub fn request(id: u16, command: u16, payload: usize) -> Self {
        Self { id, command, size: size(payload), flags: 0, error: 0 }
    }

    /// The same request, without a reply.
    pub const fn posted(self) -> Self {
        Self { flags: self.flags | NO_REPLY, ..self }
    }

    /// The header of the reply to this request, with `payload` bytes after it.
    pub fn reply(self, payload: usize) -> Self {
        Self { size: size(payload), flags: REPLY, error: 0, ..self }
    }

    /// The header of an error reply with Linux's error number `errno`.
    pub fn error_reply(self, errno: u32) -> Self {
        Self { size: size(0), flags: REPLY | ERROR, error: errno, ..self }
    }

    /// Whether it is a reply; `None` if it is neither reply nor request.
    pub const fn is_reply(self) -> Option<bool> {
        match self.flags & TYPE {
            0 => Some(false),
            REPLY => Some(true),
            _ => None,
        }
    }

    /// Whether the sender expects no reply.
    pub const fn is_posted(self) -> bool {
        self.flags & NO_REPLY != 0
    }

    /// The error number of an error reply.
    pub const fn error(self) -> Option<u32> {
        if self.flags & ERROR != 0 { Some(self.error) } else { None }
    }

    /// Bytes after the header; `None` if the size is less than the header's own.
    pub const fn payload(self) -> Option<usize> {
        (self.size as usize).checked_sub(HEADER_SIZE)
    }
}

/// Size of a message with `payload` bytes after the header. Payloads have at most
/// [`PAYLOAD_MAX`](crate::request::PAYLOAD_MAX) bytes.
fn size(payload: usize) -> u32 {
    u32::try_from(HEADER_SIZE + payload).unwrap_or(u32::MAX)
}
