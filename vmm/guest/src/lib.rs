//! The guest image: Debian's userland and kernel as packaged, our driver, and the archives to boot them.

#![cfg_attr(
    not(test),
    warn(
        clippy::cast_lossless,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

pub mod archive;
pub mod build;
pub mod cache;
pub mod image;
pub mod initramfs;
pub mod kernel;
pub mod kernel_tree;
pub mod recipe;
pub mod relay;

pub use image::{GuestImage, IMAGE_VARIABLE, Manifest};
