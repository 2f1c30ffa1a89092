//! The NICs of the modes in which the writer is on the other end of a wire, and counters of their frames.
//!
//! The usual NIC stays the first, so that the other modes are as they are without wires. Behind it each mode has a pair:
//! the target of its RDMA WRITEs, and the writer.

use refault_link::Impairments;
use refault_nic::NicStats;
use refault_observe::summary::LinkSummary;
use refault_rig::cable::CableCounters;

use super::options::{DemoArgs, Mode};
use crate::run::options::ports::PortArgs;

/// The modes, in the order of their links.
const MODES: [Mode; 2] = [Mode::Remote, Mode::Lossy];

/// The modes over wires of this run, with what happens to their frames.
fn modes(args: &DemoArgs) -> impl Iterator<Item = (Mode, Impairments)> {
    // The guest's part of a fault is put together by page request groups, which are those of one NIC.
    let by_default = args.mode.is_empty() && !args.guest_stages;
    let wanted = move |mode: &Mode| by_default || args.mode.contains(mode);
    MODES.into_iter().filter(wanted).map(|mode| match mode {
        Mode::Lossy => (mode, args.wire.clone()),
        _ => (mode, Impairments::default()),
    })
}

/// The NICs and their links.
pub(super) fn ports(args: &DemoArgs) -> PortArgs {
    PortArgs::with_links(modes(args).map(|(_, impairments)| impairments))
}

/// The guest program's options that name the RDMA devices of each mode: target and writer.
pub(super) fn devices(args: &DemoArgs) -> Vec<(&'static str, String)> {
    let pair = |((mode, _), number): ((Mode, Impairments), usize)| {
        let option = if mode == Mode::Remote { "--remote" } else { "--lossy" };
        (option, format!("refault_{number},refault_{}", number + 1))
    };
    modes(args).zip((1..).step_by(2)).map(pair).collect()
}

/// Counters of the frames: `nics` are those behind the first one.
pub(super) fn links(args: &DemoArgs, cables: &[CableCounters], nics: &[NicStats]) -> Vec<LinkSummary> {
    let link =
        |(((mode, impairments), cable), ends): (((Mode, Impairments), &CableCounters), &[NicStats])| {
            let sends = &cable.sends;
            LinkSummary {
                mode: mode.name().into(),
                impairments: if impairments.is_perfect() { String::new() } else { impairments.to_string() },
                sent: sends.iter().map(|end| end.sent).sum(),
                lost: sends.iter().map(|end| end.lost + end.dropped + end.overflown + end.down).sum(),
                reordered: sends.iter().map(|end| end.reordered).sum(),
                repeated: ends.iter().map(|nic| nic.packets_repeated).sum(),
                timeouts: ends.iter().map(|nic| nic.transport_retries).sum(),
            }
        };
    modes(args).zip(cables).zip(nics.chunks(2)).map(link).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        demo: DemoArgs,
    }

    fn args(line: &str) -> DemoArgs {
        let words = ["demo"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).expect(line).demo
    }

    #[test]
    fn each_mode_over_a_wire_has_a_pair_of_devices() {
        let both =
            [("--remote", "refault_1,refault_2".to_string()), ("--lossy", "refault_3,refault_4".to_string())];
        assert_eq!(devices(&args("")), both);
        assert_eq!(devices(&args("--mode lossy")), [("--lossy", "refault_1,refault_2".to_string())]);
        assert!(devices(&args("--mode odp")).is_empty() && !ports(&args("--mode odp")).has_ethernet());
        assert!(ports(&args("")).has_ethernet());
    }

    #[test]
    fn a_link_is_summed_up_in_both_directions() {
        let sends = [(10, 1), (5, 2)].map(|(sent, lost)| refault_link::Counters {
            sent,
            lost,
            delivered: sent - lost,
            ..refault_link::Counters::default()
        });
        let cable = CableCounters { names: ["nic1".into(), "nic2".into()], sends };
        let nics = [3, 4].map(|packets_repeated| NicStats { packets_repeated, ..NicStats::default() });
        let links = links(&args("--mode lossy --wire loss=2%"), &[cable], &nics);
        assert_eq!(links.len(), 1);
        assert_eq!((links[0].sent, links[0].lost, links[0].repeated), (15, 3, 7));
        let line = links[0].line();
        assert!(line.starts_with("link of mode lossy (loss=2%,seed=1): 15 frames sent, 3 lost"), "{line}");
    }
}
