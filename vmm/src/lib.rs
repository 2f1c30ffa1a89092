//! The `refault` command: one module for each subcommand, on top of the other crates. Without the feature `guests`
//! it has only `refault lab` and `refault report`, and needs no KVM.

#![cfg_attr(
    not(test),
    warn(
        clippy::cast_lossless,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

pub mod cli;
#[cfg(feature = "guests")]
pub mod demo;
#[cfg(feature = "guests")]
pub mod devices;
#[cfg(feature = "guests")]
pub mod doctor;
#[cfg(feature = "guests")]
mod guests;
pub mod lab;
#[cfg(feature = "guests")]
mod pair;
#[cfg(feature = "guests")]
pub mod run;
#[cfg(feature = "guests")]
pub mod serve;
