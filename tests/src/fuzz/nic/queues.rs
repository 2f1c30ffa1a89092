//! Send and receive queues, doorbells and doorbell records: what a process can write, interleaved with page faults,
//! and with pages and rights that the kernel takes away.
//!
//! **Invariant.** The NIC comes to rest after bounded work. It copies between pages of the process only, never into one
//! without the right to write, and never through a translation that was invalidated: once the kernel's flush returns, the
//! page is somebody else's. Another process' memory stays as it is, and the NIC works for it.

use refault_rig::machine::OwnSpace;

use super::process::Play;
use crate::fuzz::feed::Feed;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let own_space = if feed.flag() { OwnSpace::Translated } else { OwnSpace::PassThrough };
    let mut play = Play::new(own_space, false);
    play.run(&mut feed);
    play.end();
}
