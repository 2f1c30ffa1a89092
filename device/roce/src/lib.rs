//! RoCE v2 on the wire: what an RDMA packet looks like inside UDP, IP and Ethernet.
//!
//! A [`Packet`] is what InfiniBand's transport says: an [`Opcode`], where it goes, its [`Psn`], and the headers that the
//! opcode calls for. An [`Envelope`] is what carries it: addresses, ports and classes. [`frame`] turns both into the bytes of
//! an Ethernet frame and back. Its ICRC ([`icrc`]) covers all that a router must not change.
//!
//! Nothing here keeps state, allocates by what a header says, or knows a queue pair. Bytes from a wire are hostile: each
//! length is checked before it is used, and what is wrong has a name ([`Dropped`]).
//!
//! Sources: InfiniBand Architecture Specification volume 1, chapters 5, 7.8 and 9, and its annexes A17 (RoCE v2) and A19
//! (FLUSH, ATOMIC WRITE); Linux include/rdma/ib_pack.h and drivers/infiniband/sw/rxe.
//!
//! # Example
//!
//! ```
//! use refault_roce::{Envelope, FlushIcrc, Opcode, Operation, Packet, Place, Psn, Reth, Service, frame};
//!
//! let opcode = Opcode::new(Service::Rc, Operation::Write, Place::Only, false).unwrap();
//! let mut packet = Packet::new(opcode, 0x11, Psn::new(0xabd));
//! packet.reth = Reth { address: 0x1000, key: 0x1234, length: 5 };
//! let envelope = Envelope::v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
//!
//! let mut bytes = Vec::new();
//! let payload = frame::begin(&mut bytes, &envelope, &packet, 5).unwrap();
//! bytes[payload].copy_from_slice(b"hello");
//! frame::seal(&mut bytes, FlushIcrc::Standard).unwrap();
//!
//! let received = frame::parse(&bytes).unwrap();
//! assert_eq!((received.packet.reth.length, received.payload), (5, &b"hello"[..]));
//! assert_eq!(received.icrc, Some(FlushIcrc::Standard));
//! ```

#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod dropped;
mod envelope;
mod ethernet;
pub mod frame;
mod headers;
pub mod icrc;
mod mtu;
mod opcode;
mod packet;
mod psn;
mod syndrome;

pub use dropped::Dropped;
pub use envelope::{Addresses, Envelope, MacAddress, UDP_PORT};
pub use frame::Received;
pub use headers::{AtomicEth, Deth, Feth, Reth};
pub use icrc::FlushIcrc;
pub use mtu::Mtu;
pub use opcode::{Headers, Opcode, Operation, Place, Service};
pub use packet::{DEFAULT_PARTITION, Packet};
pub use psn::Psn;
pub use syndrome::{Aeth, Nak, Syndrome, rnr_delay_ns};
