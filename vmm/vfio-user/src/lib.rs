//! The server side of vfio-user: a PCI function outside the VMM whose guest uses it.
//!
//! The VMM is the client. It connects to a Unix socket, one for each function, forwards the guest's accesses to config
//! space and BARs, hands over guest memory as file descriptors, and takes interrupts as eventfds. The server may write
//! to guest memory through the client too, which is how a function that has no MSI-X sends a message-signalled
//! interrupt.
//!
//! The specification is QEMU's `docs/interop/vfio-user.rst`; the client to be compatible with is QEMU's `hw/vfio-user`. The
//! modules state where the two differ.
//!
//! | module | what it is |
//! |---|---|
//! | [`header`] | the 16-byte header of every message |
//! | [`request`] | a client's requests: strict parsing into [`Request`](request::Request) |
//! | [`reply`] | replies to the client, and the server's own requests |
//! | [`connection`] | messages and file descriptors on a socket |
//! | [`function`] | the interface of a device: the trait [`VfioUserFunction`](function::VfioUserFunction) |
//! | [`session`] | one client from its first message to its last |
//!
//! The crate `vfio_user` on crates.io does the same for devices whose only interrupts are MSI-X. It has no requests from
//! the server to the client, keeps its socket private, and reads at least 16 bytes at a time, so that in a burst of
//! messages file descriptors end up with the wrong message.

#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_lossless)]

pub mod connection;
pub mod function;
pub mod header;
pub mod reply;
pub mod request;
pub mod session;

/// Why a request is refused: the error numbers sent to a client, with Linux's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// EINVAL: a field has an invalid value.
    Invalid,
    /// ENOENT: there is no such object.
    Absent,
    /// EEXIST: the range overlaps an existing one.
    Exists,
    /// ENOTSUP: the command is not supported.
    Unsupported,
    /// E2BIG: larger than the server's limit.
    TooBig,
    /// ENOSPC: a table is full.
    Full,
}

impl RequestError {
    /// The error number on the wire.
    pub const fn errno(self) -> u32 {
        match self {
            Self::Invalid => 22,
            Self::Absent => 2,
            Self::Exists => 17,
            Self::Unsupported => 95,
            Self::TooBig => 7,
            Self::Full => 28,
        }
    }
}
