//! The NIC driven through its registers and rings, as a driver drives it.

mod commands;
mod datagrams;
mod differential;
mod errors;
mod ethernet;
mod events;
mod fast;
mod faults;
mod flush;
mod function;
mod hostile;
mod invalidations;
mod lanes;
mod moderation;
mod neighbours;
mod not_ready;
mod on_demand;
mod policies;
mod quiet;
mod races;
mod sampling;
mod scale;
mod shared_receive;
mod states;
mod support;
mod transfers;
mod turns;
mod wire;

/// How these tests connect queue pairs.
const LOOPBACK: refault_nic::Loopback = refault_nic::Loopback::Direct;
