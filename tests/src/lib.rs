//! Shared by the tests and benches that cross crates.

pub mod bench;
pub mod bench_fault;
pub mod bench_rig;
pub mod fuzz;
pub mod hooked;
pub mod machine;
pub mod plain_device;
pub mod program;
pub mod session;
pub mod threads;
pub mod trace;

pub use refault_rig::machine::{function, platform};
