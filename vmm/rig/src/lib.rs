//! NIC, IOMMU and memory put together: for a real guest ([`wiring`], slowed down by [`slow`] if asked), and with a model
//! guest that drives them ([`machine`]).

pub mod clock;
pub mod machine;
pub mod slow;
pub mod wiring;
