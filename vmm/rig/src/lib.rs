//! NIC, IOMMU and memory put together: for a real guest ([`wiring`], with [`delays`] on request), and with a model
//! guest that drives them ([`machine`]). [`paced`] has the decorators for steps that take time, [`cable`] what joins
//! Ethernet ports.

#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_lossless)]

pub mod cable;
pub mod clock;
pub mod delays;
pub mod machine;
pub mod paced;
pub mod wiring;
