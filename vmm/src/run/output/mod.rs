//! What the guest writes to its serial ports, and where it goes.

mod console;
mod outlets;
pub(super) mod streams;
mod verdicts;

pub(super) use self::console::{ANSWERS, GuestStatus, INPUT_WINDOW, PortState};
pub(super) use self::outlets::{Ends, Outputs, ending};
pub(super) use self::verdicts::Verdicts;
