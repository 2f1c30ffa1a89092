//! The error type of the model.

use refault_abi::command::{CommandOpcode, CommandStatus};
use refault_bus::dma::MemoryError;
use refault_bus::{Bdf, Gpa, Iova, Pasid};
use thiserror::Error;

/// Why a step of the modelled kernel or driver failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ModelError {
    /// An address lies outside guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The allocator has no free run of this size and alignment.
    #[error("out of guest memory: no {bytes:#x} free bytes aligned to {align:#x}; give the model more")]
    OutOfMemory {
        /// Bytes requested, a multiple of [`crate::memory::FRAME`].
        bytes: u64,
        /// Alignment requested, in bytes.
        align: u64,
    },
    /// The host cannot allocate guest memory of this size.
    #[error("this host cannot allocate {bytes:#x} bytes of guest memory; ask for less")]
    NoRoom {
        /// Bytes of guest memory requested.
        bytes: u64,
    },
    /// A range was freed that is free already, at least in part.
    #[error("{gpa}+{bytes:#x} was freed twice")]
    FreedTwice {
        /// Start of the range.
        gpa: Gpa,
        /// Length of the range.
        bytes: u64,
    },
    /// A wait for a device timed out: the [`crate::Pause`] returned `false`.
    #[error("timed out waiting for {0}")]
    Stuck(&'static str),
    /// A page of any size is mapped at this address already.
    #[error("{iova} is mapped already")]
    Mapped {
        /// Address of the page that was to be mapped.
        iova: Iova,
    },
    /// No page is mapped at this address that the operation applies to, or the access is not allowed.
    #[error("nothing suitable is mapped at {iova}")]
    NotMapped {
        /// Address of the access or operation.
        iova: Iova,
    },
    /// An address is not a multiple of the page size.
    #[error("{value:#x} is not aligned to {align:#x}")]
    Misaligned {
        /// The virtual or physical address.
        value: u64,
        /// The page size in bytes.
        align: u64,
    },
    /// The IOMMU lacks a capability that Linux requires for SVA.
    #[error("the IOMMU does not offer {0}")]
    MissingCapability(&'static str),
    /// The IOMMU rejected an invalidation descriptor (FSTS.IQE).
    #[error("invalidation queue error at descriptor {index}: {qw0:#x} {qw1:#x}")]
    BadDescriptor {
        /// Index of the descriptor in the ring.
        index: u32,
        /// Bits 63:0 of the descriptor.
        qw0: u64,
        /// Bits 127:64 of the descriptor.
        qw1: u64,
    },
    /// The PASID table entry is present already, or the PASID is beyond the directory.
    #[error("PASID {pasid} of {requester} is in use or out of range")]
    PasidBusy {
        /// Requester id of the function that owns the PASID table.
        requester: Bdf,
        /// The PASID, 0 for requests without one.
        pasid: Pasid,
    },
    /// The function lacks a capability or register, or did not accept a setting.
    #[error("the function does not offer {0}")]
    Function(&'static str),
    /// The NIC completed a command with a status other than `STATUS_OK`.
    #[error("command {:#x} failed with status {}", opcode.0, status.0)]
    Command {
        /// Command code, `CMD_*`.
        opcode: CommandOpcode,
        /// Status of the response, `STATUS_*`.
        status: CommandStatus,
    },
    /// A ring has no free slot.
    #[error("{0} is full")]
    Full(&'static str),
}
