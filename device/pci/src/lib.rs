//! PCI Express functions: config space, BARs, MSI-X, ATS, PRI and PASID capabilities.
//!
//! An [`Endpoint`] is the configuration side of one function. It is described once, with an [`Identity`],
//! BARs and capabilities, and from then on answers config reads and writes of any width at any offset. What
//! the guest has switched on is one atomic word, [`Controls`], that the data path may look at for nothing.
//! What a config write asks of the function comes back as a [`ConfigEffect`]. The machine sees a function as
//! a [`PciFunction`].

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
