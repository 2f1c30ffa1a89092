//! The RDMA-like NIC: queues, memory regions, device TLB, page requests.
//!
//! The driver's side of it is described in `refault-abi` and in the NIC manual, `docs/nic.md`. A [`Nic`] is a PCI
//! function ([`refault_pci::PciFunction`]) with a device TLB ([`refault_bus::ats::AtsEndpoint`]). It starts no thread
//! and reads only the clock that it is given. Its work is done by [`Worker`]s, on one thread or several.
//!
//! Each folder uses only those below it:
//!
//! | module | owner | what it does |
//! |---|---|---|
//! | `nic` | [`Nic`], [`Worker`] | the public interface |
//! | `front` | `Front` | registers, doorbells, commands, the records of objects, the layout of rings |
//! | `engine` | `Engine`, `Turn` | queue pairs in turn: requester, hand-over, responder |
//! | `fault` | `Faults` | page requests and page faults, their waiters |
//! | `schedule` | `Workers` | the workers' queues and timers |
//! | `qp`, `queue` | `QueuePairs`, `CompletionQueues`, ... | their state |
//! | `memory` | `Memory`, `Port` | keys, tables, the device TLB, copies |
//! | `ethernet` | `EthernetPort` | the port: addresses, wire, who takes what arrives |
//! | `verbs`, `ids`, ... | | records and numbers that all others use |
//!
//! The path of one DMA: a doorbell (`front::doorbell`) queues a turn (`engine::requester`), which fetches the request
//! (`front::rings`) and hands it over (`engine::handover`) to the responder; `memory::resolve` checks key, bounds and
//! rights, `memory::port` translates through the device TLB or the IOMMU, `memory::copy` copies, and
//! `queue::completion` reports. A page that is missing goes through `fault`: to the IOMMU as a page request or, of a
//! region with a table of its own, to the driver as an event.

#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::missing_errors_doc
)]

mod cause;
mod chance;
mod config;
mod engine;
mod ethernet;
mod fabric;
mod fault;
mod front;
mod ids;
mod memory;
mod nic;
mod observe;
mod qp;
mod queue;
mod schedule;
mod slab;
mod stats;
mod storage;
mod timers;
mod verbs;

pub use config::{DatagramFaults, LinkLayer, Loopback, NicConfig, PacketConfig, RemoteFaults};
pub use memory::copy::COPY_CHUNK;
pub use nic::{Nic, Worker};
pub use refault_roce::FlushIcrc;
pub use schedule::Work;
pub use stats::{FrameStats, NicStats};
