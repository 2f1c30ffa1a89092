//! The lab against queueing theory.

mod queueing;
