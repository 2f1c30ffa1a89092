//! The guest image: Debian's userland and kernel as packaged, our driver, and what boots them.

pub mod build;
pub mod cache;
pub mod initramfs;
pub mod kernel;
pub mod mirror;
pub mod modules;
pub mod packages;
pub mod recipe;
