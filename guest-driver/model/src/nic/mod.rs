//! The NIC's driver: the steps of the kernel module and of the libibverbs provider, for one function. `refault_abi` has
//! the layouts of registers, rings and commands.

mod attributes;
mod buffer;
mod completion;
mod config;
mod driver;
mod event;
mod lane;
mod objects;
mod on_demand;
mod port;
mod queue_pair;
mod shared_queue;
mod umem;
pub mod work;

pub use buffer::{Buffer, DmaDomain, PassThrough, TranslatedDomain, page_table};
pub use completion::CompletionQueue;
pub use config::{Config, ConfigAccess};
pub use driver::{Driver, DriverSetup, FunctionAccess};
pub use event::EventQueue;
pub use lane::{CommandLane, Ticket};
pub use objects::{Context, MemoryRegion, QueuePairSetup};
pub use on_demand::{OnDemandRegion, PageFaultHandler, PageFaultQueue};
pub use port::PortAddress;
pub use queue_pair::QueuePair;
pub use shared_queue::SharedReceiveQueue;
pub use umem::Umem;
