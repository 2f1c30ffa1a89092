//! A guest without a CPU: it allocates guest-physical memory, builds real x86-64 and VT-d tables in it, and makes the
//! register accesses of Linux 7.2 and of the NIC's driver - without executing guest code. Tests, benches and the lab
//! drive the NIC and the IOMMU with it.
//!
//! The crate starts no threads, reads no clock, and needs no `unsafe`. Where a driver would wait for a device it calls
//! a [`Pause`], so the same code runs on a single thread, where the pause runs the devices, or on several, where it
//! yields.
//!
//! * [`memory`]: guest memory and its frame allocator.
//! * [`paging`]: x86-64 page tables.
//! * [`process`]: address spaces, page faults, and what the kernel does to pages.
//! * [`vtd`]: the IOMMU driver: tables, queued invalidation, page requests, SVA.
//! * [`nic`]: the NIC's driver: capabilities, command lanes, queues, on-demand regions.
//! * [`dax`]: a filesystem whose blocks are memory, and the operations that move them.
//! * [`policy`]: proposed rules for DMA into files of such a filesystem.
//! * [`interrupts`], [`pause`], [`registers`], [`scheduler`]: the platform, time, and access to devices.
//!
//! # Example
//!
//! A page of a process is migrated, and keeps its contents:
//!
//! ```
//! use std::sync::Arc;
//!
//! use refault_bus::Iova;
//! use refault_bus::dma::GuestRam;
//! use refault_model::paging::{PageSize, Rights};
//! use refault_model::{GuestMemory, Process};
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)])?;
//! let memory = GuestMemory::new(Arc::new(GuestRam::new(Arc::new(ram))), [0x1000..0x10_0000]);
//!
//! let process = Process::new(memory.clone())?;
//! let page = Iova(0x7f00_0000_0000);
//! process.map_area(page, 0x4000, Rights::Write, PageSize::Small);
//! assert_eq!(process.space.lookup(page)?, None, "no page before the first fault");
//!
//! process.write(page, b"hello")?;
//! let old = process.move_page(page)?;
//! let leaf = process.space.lookup(page)?.expect("mapped again");
//! assert!(leaf.gpa != old && leaf.writable());
//! assert_eq!(memory.bytes(leaf.gpa, 5)?, b"hello");
//! # Ok(())
//! # }
//! ```

#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_lossless)]

pub mod dax;
pub mod error;
pub mod interrupts;
pub mod memory;
pub mod nic;
pub mod paging;
pub mod pause;
pub mod policy;
pub mod process;
pub mod registers;
pub mod scheduler;
pub mod vtd;

pub use error::ModelError;
pub use memory::GuestMemory;
pub use pause::Pause;
pub use process::Process;
