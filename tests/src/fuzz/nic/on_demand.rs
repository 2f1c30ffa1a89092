//! On-demand regions: their faults, answers to them, invalidations, and, in half of the inputs, tables with anything in
//! them.
//!
//! **Invariant.** That of the queues. With damaged tables the NIC may reach what the driver has mapped for it,
//! rings included, but nothing else: the driver's own addresses are translated then.

use refault_rig::machine::OwnSpace;

use super::process::Play;
use crate::fuzz::feed::Feed;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let kind = feed.below(3);
    let own_space = if kind == 0 { OwnSpace::PassThrough } else { OwnSpace::Translated };
    let mut play = Play::new(own_space, true);
    if kind == 2 {
        play.open_driver();
    }
    play.run(&mut feed);
    play.end();
}
