//! PCI Express functions: config space, BARs, MSI-X, ATS, PRI and PASID capabilities.
//!
//! An [`Endpoint`] is the configuration side of one function. It is described once, by an [`Identity`], BARs and
//! capabilities, and then serves config reads and writes of any width at any offset. The switches that the guest
//! controls are one atomic word, [`Controls`], so the data path can read them without a lock. A config write returns
//! what the function has to do as a [`ConfigEffect`]. To the machine, a function is a [`PciFunction`].
//!
//! # Example
//!
//! A network controller with one BAR and ATS, and what a guest's driver does first:
//!
//! ```
//! use refault_pci::caps::{ats, express};
//! use refault_pci::{Endpoint, Identity};
//!
//! let identity = Identity {
//!     vendor: 0x1234,
//!     device: 1,
//!     class: 0x02_0700,
//!     revision: 1,
//!     subsystem_vendor: 0x1234,
//!     subsystem: 1,
//! };
//! let endpoint = Endpoint::builder(identity)
//!     .bar(0, 0x1_0000, true)
//!     .capability(express::integrated_endpoint())
//!     .capability(ats::address_translation(32))
//!     .build()
//!     .unwrap();
//!
//! // The driver places BAR 0, then enables memory space (bit 1) and bus mastering (bit 2).
//! endpoint.config_write(0x10, &0xd000_0000u32.to_le_bytes());
//! let effect = endpoint.config_write(0x04, &0b110u16.to_le_bytes());
//! assert!(effect.bars_moved && effect.after.bus_master());
//! assert_eq!(endpoint.bar(0), Some(0xd000_0000..0xd001_0000));
//! ```

#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

pub mod caps;

mod bar;
mod builder;
mod controls;
mod endpoint;
mod function;
mod identity;
mod msix;
mod space;

pub use bar::Bar;
pub use builder::{EndpointBuilder, EndpointLayoutError};
pub use controls::{ConfigEffect, Controls};
pub use endpoint::Endpoint;
pub use function::PciFunction;
pub use identity::Identity;
pub use msix::{MsixLayout, MsixTable};
