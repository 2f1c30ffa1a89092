//! The hosts other than our own VMM: stock QEMU, connected to our devices by vfio-user, and our VMM inside a machine that
//! QEMU emulates; and the choice between the three.

#![cfg_attr(
    not(test),
    warn(
        clippy::cast_lossless,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

pub mod choice;
pub mod emulation;
mod memory_row;
pub mod nested;
pub mod qemu;
pub mod serve;
