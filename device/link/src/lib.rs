//! The wire between network ports.
//!
//! So far it is what a wire leaves behind: a capture of the frames that passed, with comments: this one was
//! dropped, that one was held ([`Capture`]).

#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod pcapng;

pub use pcapng::{Capture, Direction, Sighting};
