//! What refault needs of the operating system beneath it: messages, the user's terminal, signals, child processes, the
//! programs it calls, and how fast the machine is. Nothing here knows guests or devices.

pub mod beneath;
pub mod bug;
pub mod outlet;
pub mod process;
pub mod say;
pub mod sigbus;
pub mod signals;
pub mod speed;
pub mod stop;
pub mod terminal;
pub mod tools;

/// The command line, as one would type it.
pub fn command_line() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    ["refault".to_string()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}
