//! A guest without a CPU: it allocates guest-physical memory, builds real x86-64 and VT-d tables in it, and
//! takes the steps that Linux 7.2 and the NIC's driver take against the register windows - without executing
//! an instruction of a guest.
//!
//! Nothing here starts a thread, reads a clock or needs `unsafe`. Where a driver would wait, it calls a
//! [`Pause`], so that the same steps run on one thread (the pause lets the devices work) or on several (the
//! pause yields).
//!
//! * [`memory`]: the frame allocator.
//! * [`paging`]: a process' page tables.
//! * [`process`]: areas, page fault handlers, and moving pages about.
//! * [`dax`]: a filesystem whose blocks are memory, and everything that moves them.
//! * [`policy`]: what has been proposed for DMA into such files, each as rules of filesystem and registration.
//! * [`vtd`]: the IOMMU driver: tables, queued invalidation, page requests, SVA bind and unbind.
//! * [`nic`]: the NIC's driver: capabilities, command lanes, queues.

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
