//! Page faults: what was asked for, and who waits for it.

pub(crate) mod events;
pub(crate) mod requests;
pub(crate) mod waits;
