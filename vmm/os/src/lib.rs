//! The operating system services that refault uses: messages, the user's terminal, signals, child processes, host programs,
//! the sandbox, temporary folders, and the speed of the machine. Nothing here knows about guests or devices.

#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_lossless)]

pub mod bug;
pub mod confined;
pub mod message;
pub mod output_queue;
pub mod process;
pub mod sandbox;
pub mod scratch;
pub mod sigbus;
pub mod signals;
pub mod speed;
pub mod stop;
pub mod syscalls;
pub mod tap;
pub mod terminal;
pub mod tools;

/// Exit status when refault itself failed, so that nothing is known about the guest.
pub const FAILED: u8 = 125;

/// The command line of this process as a user would type it, `refault` first.
pub fn command_line() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    ["refault".to_string()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}
