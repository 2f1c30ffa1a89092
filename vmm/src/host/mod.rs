//! What the host lends: programs, child processes, places for temporary files.

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
