//! Wires that lead out of the process: to another refault, to QEMU, to another host, to the host's own kernel.
//!
//! An [`Outlet`] is the far end of a NIC's wire. What the wire brings it ([`WirePort`]) it sends out, and what comes from out there it sends into the wire. It never blocks the wire: what the other
//! side does not take in time is dropped, as by a switch.
//!
//! | address | what a frame is | the other side |
//! |---|---|---|
//! | `unix:PATH` | its length as a 32-bit big-endian number, then its bytes | another refault, QEMU's `-netdev stream` |
//! | `udp:LOCAL,REMOTE` | one datagram | another refault, QEMU's `-netdev dgram` |
//! | `tap:NAME` | one read or write | the host's kernel, by a tap device that is there |
//!
//! [`WirePort`]: refault_bus::wire::WirePort

mod address;
mod datagram;
mod line;
mod outlet;
mod queue;
mod stream;
mod tap;

pub use address::Address;
pub use outlet::{Outlet, OutletStats, Side};
