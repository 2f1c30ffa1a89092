//! The guest image: Debian's userland and kernel as packaged, our driver, and the archives to boot them.

#![warn(clippy::missing_errors_doc)]

pub mod build;
pub mod cache;
pub mod choice;
mod chroot;
mod driver;
pub mod image;
pub mod initramfs;
pub mod kernel;
pub mod kernel_config;
pub mod kernel_tree;
pub mod mirror;
pub mod modules;
pub mod outer;
pub mod packages;
mod provider;
pub mod recipe;
pub mod relay;
mod runtime;
mod source;

pub use image::{GuestImage, IMAGE_VARIABLE, Manifest};
