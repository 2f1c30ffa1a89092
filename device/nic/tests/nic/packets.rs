//! What the NIC's tests say of reliable connections, said of connections in packets. Where the two differ, the test says so.

#![expect(dead_code, reason = "some of what the other tests need is not needed here")]

mod errors;
mod fast;
mod faults;
mod flush;
mod hostile;
mod invalidations;
mod neighbours;
mod not_ready;
mod on_demand;
mod quiet;
mod races;
mod shared_receive;
mod states;
mod support;
mod transfers;

/// How these tests connect queue pairs.
const LOOPBACK: refault_nic::Loopback = refault_nic::Loopback::Packets { loss_ppm: 0 };
