//! A panic anywhere is a bug of ours, and ends the program: a thread less would leave a guest that waits for ever.

use super::terminal;

/// The exit status when refault itself failed: nothing can be said about the guest.
pub const FAILED: u8 = 125;

/// Has the first panic of any thread end the program with a message.
pub fn panics_end_us() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        terminal::restore();
        usual(panic);
        eprintln!("refault: this is a bug in refault: please report it with the lines above");
        std::process::exit(FAILED.into());
    }));
}
