//! Carries a command's standard streams over one byte channel: between us and a machine that QEMU emulates, and
//! between us and the guest. The C side of it is `guest/init/relay.c`.

mod escape;
mod frame;
mod pump;

pub use escape::Escape;
pub use frame::{Decoder, Frame, FrameError, PAYLOAD_MAX};
pub use pump::{Credit, pump_input};
