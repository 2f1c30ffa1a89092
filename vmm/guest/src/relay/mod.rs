//! Carries a command's standard streams over one byte channel: between refault and the nested machine, and between
//! refault and the guest. The C side is `vmm/guest/src/image/init/relay.c`.

mod escape;
mod frame;
mod pump;

pub use escape::Escape;
pub use frame::{Decoder, Frame, FrameError, PAYLOAD_MAX};
pub use pump::{Credit, pump_input};
