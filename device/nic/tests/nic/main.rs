//! The NIC driven through its registers and rings, as a driver drives it.

mod support;
mod transfers;
