//! The RDMA-like NIC: queues, memory regions, device TLB, page requests.
//!
//! The driver's side of it is described in `refault-abi` and in the NIC manual, `docs/nic.md`. A [`Nic`] is a
//! PCI function ([`refault_pci::PciFunction`]) with a device TLB ([`refault_bus::ats::AtsEndpoint`]); it has
//! no thread, and no clock but the one handed in. Its work is done by [`Worker`]s, on threads or on one.
//!
//! The path of one DMA through the crate: [`doorbell`](Nic) write, `engine` turn, `queue::send` fetches the
//! request, `region` checks key, bounds and rights, `dma` translates through `atc` or the IOMMU, `engine::copy`
//! copies, `queue::completion` reports. A page that is missing goes through `engine::faults`, and from there to the
//! IOMMU by `pri` or, of a region with a table of its own (`on_demand`), to the driver by `page_faults`.

mod atc;
mod cause;
mod command;
mod config;
mod dma;
mod doorbell;
mod engine;
mod fabric;
mod function;
mod guard;
mod nic;
mod on_demand;
mod page_faults;
mod page_table;
mod pri;
mod qp;
mod queue;
mod region;
mod regs;
mod slab;
mod stats;
mod waits;

pub use config::{NicConfig, RemoteFaults};
pub use engine::{Work, Worker};
pub use nic::Nic;
pub use stats::NicStats;
