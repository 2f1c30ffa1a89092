//! A panic in any thread is a bug and ends the program: with one thread missing, the guest would wait forever.

use super::terminal;

pub use crate::FAILED;

/// Makes the first panic of any thread end the program with a message.
pub fn exit_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        terminal::restore();
        usual(panic);
        eprintln!("refault: this is a bug in refault: please report it with the lines above");
        std::process::exit(FAILED.into());
    }));
}
