//! The server's side of vfio-user: a PCI function outside the VMM that shows it to a guest.
//!
//! The VMM is the client. It connects to a Unix socket, one for each function, forwards the guest's accesses to config
//! space and BARs, hands over guest memory as file descriptors, and takes interrupts as eventfds. The server may write
//! to guest memory through the client too, which is how a function that has no MSI-X sends a message-signalled
//! interrupt.
//!
//! The specification is QEMU's `docs/interop/vfio-user.rst`; the client that counts is QEMU's `hw/vfio-user`. Where they
//! differ, the module that has to do with it says so.
//!
//! | module | what it is |
//! |---|---|
//! | [`header`] | the 16 bytes in front of every message |
//! | [`request`] | what a client asks: bytes to [`Request`](request::Request), strictly |
//! | [`reply`] | what it is answered, and what the server asks in turn |
//! | [`connection`] | messages and file descriptors on a socket |
//! | [`function`] | what a device has to be: the trait [`Function`](function::Function) |
//! | [`session`] | one client from its first message to its last |
//!
//! The crate `vfio_user` on crates.io does the same for devices that send no interrupts but MSI-X. It has no requests
//! from the server to the client, keeps its socket to itself, and reads 16 bytes or more at a time, so that a burst of
//! messages with file descriptors gets them mixed up.

pub mod connection;
pub mod function;
pub mod header;
pub mod reply;
pub mod request;
pub mod session;

/// The error numbers that are sent to a client, as Linux has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// EINVAL: a field has a value that it cannot have.
    Invalid,
    /// ENOENT: nothing of that kind is there.
    Absent,
    /// EEXIST: something is there already.
    Exists,
    /// ENOTSUP: a command that is not served.
    Unsupported,
    /// E2BIG: more than the server agreed to.
    TooBig,
    /// ENOSPC: a table is full.
    Full,
}

impl Refusal {
    /// The number on the wire.
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
