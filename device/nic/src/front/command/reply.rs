//! Responses to commands.

use refault_abi::command::{
    CommandStatus, ObjectId, STATUS_BAD_MEMORY, STATUS_BAD_OPCODE, STATUS_BAD_PARAMETER, STATUS_BAD_STATE,
    STATUS_BUSY, STATUS_NO_OBJECT, STATUS_NO_RESOURCES,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Why a command failed: its STATUS_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    BadOpcode,
    BadParameter,
    NoObject,
    Busy,
    NoResources,
    BadState,
    BadMemory,
}

impl Refused {
    pub(super) const fn status(self) -> CommandStatus {
        match self {
            Self::BadOpcode => STATUS_BAD_OPCODE,
            Self::BadParameter => STATUS_BAD_PARAMETER,
            Self::NoObject => STATUS_NO_OBJECT,
            Self::Busy => STATUS_BUSY,
            Self::NoResources => STATUS_NO_RESOURCES,
            Self::BadState => STATUS_BAD_STATE,
            Self::BadMemory => STATUS_BAD_MEMORY,
        }
    }
}

/// Body of a request or response.
pub(super) type Body = [u64; 15];
/// A response's body, or the status of the failure.
pub(super) type Reply = Result<Body, Refused>;

/// An empty response.
pub(super) const DONE: Reply = Ok([0; 15]);

/// The layout in a request's body. All layouts are shorter than a body.
pub(super) fn body<T: FromBytes + KnownLayout + Immutable>(body: &Body) -> Result<T, Refused> {
    T::read_from_prefix(body.as_bytes()).map(|(value, _)| value).map_err(|_| Refused::BadParameter)
}

/// A response with a layout.
pub(super) fn reply<T: IntoBytes + Immutable>(value: &T) -> Reply {
    let mut body = [0; 15];
    if let Some(room) = body.as_mut_bytes().get_mut(..size_of::<T>()) {
        room.copy_from_slice(value.as_bytes());
    }
    Ok(body)
}

/// A response with an object's number.
pub(super) fn created(id: u32) -> Reply {
    reply(&ObjectId { id, reserved: 0 })
}
