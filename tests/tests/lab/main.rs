//! The lab against queueing theory.

mod queueing;
mod wire;
