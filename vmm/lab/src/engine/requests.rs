//! The requests of a scenario, one after the other: what the program of an experiment posts, and what a real guest's
//! program is given to post.

use rand_pcg::Pcg64Mcg;

use super::dice::{Stream, dice, gap_ns, happens};
use super::sequence::Sequence;
use crate::scenario::{Arrival, Scenario};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_order_of_requests_and_the_shares_that_were_asked_for() {
        let scenario = |seed| {
            let text = format!(
                "requests = 2000\nseed = {seed}\npreset = \"none\"\n[load]\npattern = \"random\"\n\
                 message = \"4 KiB\"\nregion = \"1 MiB\"\nwrite_share = 0.25\ncold_share = 0.5\n"
            );
            Scenario::from_toml("requests", &text).expect("a scenario")
        };
        let all = |seed| requests(&scenario(seed)).collect::<Vec<_>>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        let share = |of: fn(&Request) -> bool| all(1).iter().filter(|request| of(request)).count();
        assert!((400..600).contains(&share(|request| request.write)));
        assert!((900..1100).contains(&share(|request| request.cold)));
        assert!(all(1).iter().all(|request| request.message < 256 && request.gap_ns == 0));
    }
}
