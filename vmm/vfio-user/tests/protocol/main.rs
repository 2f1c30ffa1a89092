//! The server's side of vfio-user, tested by a client that builds every byte by hand.

mod client;
mod framing;
mod properties;
mod recorder;
mod refusals;
mod session;
mod wire;
