//! What the guest writes to its serial ports, and where it goes.

mod console;
mod outlets;
pub(super) mod streams;
mod verdicts;

pub(super) use self::console::{
    ANSWERS, ControlPort, GuestStatus, INPUT_WINDOW, LogPort, PortState, StreamPort,
};
pub(super) use self::outlets::{Ends, Outputs, ending};
pub(super) use self::verdicts::Verdicts;
