use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Why a frame is not a packet for this port's queue pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Dropped {
    /// Other traffic: not UDP to port 4791, a fragment, or IP with options.
    #[error("not RoCE v2")]
    NotRoce,
    /// It ends before a length in it says so, or before its headers do.
    #[error("the frame is too short")]
    Short,
    /// The checksum of the IPv4 header is wrong.
    #[error("wrong checksum of the IPv4 header")]
    IpChecksum,
    /// A version of the transport other than 0.
    #[error("transport version {0}, not 0")]
    Version(u8),
    /// No such opcode.
    #[error("unknown opcode {0:#04x}")]
    Opcode(u8),
    /// The ICRC is wrong.
    #[error("wrong ICRC")]
    Icrc,
}

/// Takes a `T` off the start of `rest`.
pub(crate) fn take<T: FromBytes + KnownLayout + Immutable + Unaligned>(
    rest: &mut &[u8],
) -> Result<T, Dropped> {
    let (value, after) = T::read_from_prefix(rest).map_err(|_| Dropped::Short)?;
    *rest = after;
    Ok(value)
}
