//! The RDMA-like NIC: queues, memory regions, device TLB, page requests.
//!
//! The driver's side of it is described in `refault-abi` and in the NIC manual, `docs/nic.md`. A [`Nic`] is a
//! PCI function ([`refault_pci::PciFunction`]) with a device TLB ([`refault_bus::ats::AtsEndpoint`]); it has
//! no thread, and no clock but the one handed in. Its work is done by [`Worker`]s, on threads or on one.
//!
//! The path of one DMA through the crate: [`doorbell`](Nic) write, `engine` turn, `queue::send` fetches the
//! request, `memory::region` checks key, bounds and rights, `memory::port` translates through the device TLB or the
//! IOMMU, `memory::copy` copies, `queue::completion` reports. A page that is missing goes through `fault`: to the
//! IOMMU as a page request or, of a region with a table of its own, to the driver as an event.

mod cause;
mod config;
mod engine;
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
mod timers;
mod verbs;

pub use config::{NicConfig, RemoteFaults};
pub use memory::copy::COPY_CHUNK;
pub use nic::{Nic, Worker};
pub use schedule::Work;
pub use stats::NicStats;
