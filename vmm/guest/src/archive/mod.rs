//! The Debian archive: where it is, its packages, and which of its kernels a guest gets.

pub mod kernels;
pub mod mirror;
pub mod packages;
