//! The requests of a scenario, one after the other: what the program of an experiment posts, and what a real guest's
//! program is given to post.

use rand_pcg::Pcg64Mcg;

use super::dice::{Stream, dice, gap_ns, happens};
use super::sequence::Sequence;
use crate::lab::scenario::{Arrival, Scenario};

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it arrives, after the one before; zero in a closed loop.
    pub gap_ns: u64,
    /// Number of its message in the target.
    pub message: u64,
    /// Its pages are taken from memory just before.
    pub cold: bool,
    /// It writes into the target; else it reads out of it.
    pub write: bool,
}

/// All requests of a scenario.
pub fn requests(scenario: &Scenario) -> impl Iterator<Item = Request> {
    let mut source = Requests::new(scenario);
    let mut arrivals = dice(scenario.seed, Stream::Arrivals);
    let arrival = scenario.load.arrival;
    (0..scenario.requests).map(move |_| {
        let gap_ns = match arrival {
            Arrival::Closed => 0,
            Arrival::Poisson { per_second } => gap_ns(&mut arrivals, per_second),
        };
        Request { gap_ns, ..source.next() }
    })
}

/// Where requests come from, without their times.
pub(super) struct Requests {
    sequence: Sequence,
    dice: Pcg64Mcg,
    cold_share: f64,
    write_share: f64,
}

impl Requests {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let load = &scenario.load;
        let mut dice = dice(scenario.seed, Stream::Load);
        let sequence = Sequence::new(load, &mut dice);
        Self { sequence, dice, cold_share: load.cold_share, write_share: load.write_share }
    }

    pub(super) fn next(&mut self) -> Request {
        let message = self.sequence.next(&mut self.dice);
        let cold = happens(&mut self.dice, self.cold_share);
        let write = happens(&mut self.dice, self.write_share);
        Request { gap_ns: 0, message, cold, write }
    }
}
