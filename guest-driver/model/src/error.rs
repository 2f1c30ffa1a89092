//! What can go wrong for a driver.

use refault_bus::dma::MemoryError;
use refault_bus::{Bdf, Gpa, Iova, Pasid};
use thiserror::Error;

/// A step that a driver could not take.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ModelError {
    /// A table or ring lies outside memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No free run of that size is left.
    #[error("out of guest memory: no {bytes:#x} free bytes aligned to {align:#x}; give the model more")]
    OutOfMemory {
        /// Wanted.
        bytes: u64,
        /// Alignment wanted, in bytes.
        align: u64,
    },
    /// There is no machine with so much memory.
    #[error("this host has no room for {bytes:#x} bytes of guest memory; ask for less")]
    NoRoom {
        /// Wanted.
        bytes: u64,
    },
    /// A frame was freed that was not allocated.
    #[error("{gpa}+{bytes:#x} was freed twice")]
    FreedTwice {
        /// The frame.
        gpa: Gpa,
        /// Its size.
        bytes: u64,
    },
    /// A device did not answer while the [`crate::Pause`] was patient.
    #[error("gave up waiting for {0}")]
    Stuck(&'static str),
    /// Something is mapped there already, or a larger page is.
    #[error("{iova} is mapped already")]
    Mapped {
        /// Where.
        iova: Iova,
    },
    /// Nothing, or a page of another size, is mapped there.
    #[error("nothing suitable is mapped at {iova}")]
    NotMapped {
        /// Where.
        iova: Iova,
    },
    /// An address is not aligned as its page size wants.
    #[error("{value:#x} is not aligned to {align:#x}")]
    Misaligned {
        /// The address.
        value: u64,
        /// The alignment in bytes.
        align: u64,
    },
    /// The unit lacks a capability that Linux wants for SVA.
    #[error("the IOMMU does not offer {0}")]
    MissingCapability(&'static str),
    /// The unit rejected a descriptor.
    #[error("invalidation queue error at descriptor {index}: {qw0:#x} {qw1:#x}")]
    BadDescriptor {
        /// Its index in the ring.
        index: u32,
        /// First quadword.
        qw0: u64,
        /// Second quadword.
        qw1: u64,
    },
    /// The PASID has an entry already, or is beyond the directory.
    #[error("PASID {pasid} of {requester} is in use or out of range")]
    PasidBusy {
        /// The function.
        requester: Bdf,
        /// The PASID.
        pasid: Pasid,
    },
    /// The function lacks a capability in config space, or did not take a setting.
    #[error("the function does not offer {0}")]
    Function(&'static str),
    /// The device answered a command with a status other than STATUS_OK.
    #[error("command {opcode:#x} failed with status {status}")]
    Command {
        /// CMD_*.
        opcode: u16,
        /// STATUS_*.
        status: u16,
    },
    /// The ring has no free slot.
    #[error("{0} is full")]
    Full(&'static str),
}
