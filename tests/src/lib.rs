//! What the tests and benches that cross crates share.

pub mod bench;
pub mod first_touch;
pub mod platform;
pub mod trace;
