//! The sequence of requests of a scenario, the same for an experiment and for the load program in a real guest.

use rand_pcg::Pcg64Mcg;

use super::dice::{Stream, dice, gap_ns, happens};
use super::sequence::Sequence;
use crate::scenario::{Arrival, Scenario};

/// One request of a scenario's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadRequest {
    /// Nanoseconds from the arrival of the previous request; zero in a closed loop.
    pub gap_ns: u64,
    /// Index of its message in the target.
    pub message: u64,
    /// Its pages are evicted just before it is posted.
    pub cold: bool,
    /// An RDMA WRITE into the target; otherwise an RDMA READ from it.
    pub write: bool,
}

/// All requests of a scenario, in order.
pub fn requests(scenario: &Scenario) -> impl Iterator<Item = LoadRequest> {
    let mut source = RequestStream::new(scenario);
    let mut arrivals = dice(scenario.seed, Stream::Arrivals);
    let arrival = scenario.load.arrival;
    (0..scenario.requests).map(move |_| {
        let gap_ns = match arrival {
            Arrival::Closed => 0,
            Arrival::Poisson { per_second } => gap_ns(&mut arrivals, per_second),
        };
        LoadRequest { gap_ns, ..source.next() }
    })
}

/// An endless stream of requests without arrival times.
pub(super) struct RequestStream {
    sequence: Sequence,
    dice: Pcg64Mcg,
    cold_share: f64,
    write_share: f64,
}

impl RequestStream {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let load = &scenario.load;
        let mut dice = dice(scenario.seed, Stream::Load);
        let sequence = Sequence::new(load, &mut dice);
        Self { sequence, dice, cold_share: load.cold_share, write_share: load.write_share }
    }

    pub(super) fn next(&mut self) -> LoadRequest {
        let message = self.sequence.next(&mut self.dice);
        let cold = happens(&mut self.dice, self.cold_share);
        let write = happens(&mut self.dice, self.write_share);
        LoadRequest { gap_ns: 0, message, cold, write }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_requests_and_shares_are_respected() {
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
        let share = |of: fn(&LoadRequest) -> bool| all(1).iter().filter(|request| of(request)).count();
        assert!((400..600).contains(&share(|request| request.write)));
        assert!((900..1100).contains(&share(|request| request.cold)));
        assert!(all(1).iter().all(|request| request.message < 256 && request.gap_ns == 0));
    }
}
