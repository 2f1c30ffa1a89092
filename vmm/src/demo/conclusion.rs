//! The end of a demo, as the user reads it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::options::DemoArgs;
use refault_observe::folder::LATEST;
use refault_observe::report::names;
use refault_observe::report::verdicts::{Case, CaseVerdict, VerdictArgs};
use refault_observe::summary::{RunResult, RunSummary};
use refault_os::message::note;
use refault_os::speed::Speed;

/// Prints what failed and the totals, and writes the verdicts.
///
/// # Errors
/// The verdicts cannot be written.
pub(super) fn conclude(args: &DemoArgs, summary: &RunSummary, path: &Path) -> Result<()> {
    for scenario in &summary.scenarios {
        let how = match scenario.result {
            RunResult::Pass => continue,
            RunResult::Slow => "was too slow",
            RunResult::Fail => "failed",
        };
        note(&format!("{} ({}) {how}: {}", scenario.name, scenario.label(), scenario.reason));
    }
    if let Some(reason) = &summary.reason {
        note(&format!("the run failed: {reason}"));
    }
    summary.guest_log.iter().for_each(|line| note(&format!("guest: {line}")));
    let passed = summary.scenarios.iter().filter(|scenario| scenario.result == RunResult::Pass).count();
    let faults: u64 = summary.scenarios.iter().map(|scenario| scenario.faults).sum();
    note(&format!(
        "{passed} of {} scenarios passed with {faults} faults in {:.0} s, {:.0} s of them to boot",
        summary.scenarios.len(),
        summary.seconds,
        summary.boot_seconds
    ));
    summary.links.iter().for_each(|link| note(&link.line()));
    if let Some(machine) = summary.observed.machine {
        let guest = Some(summary.setup.guest_speed).filter(|speed| *speed != Speed::default());
        let guest = guest.map(|speed| format!("; in the guest {}", speed.line())).unwrap_or_default();
        note(&format!("on this machine {}{guest}", machine.line()));
    }
    let latest: PathBuf = path.with_file_name(LATEST);
    note(&format!("report: {} (also at {})", path.join(names::REPORT).display(), latest.display()));
    let verdicts = VerdictArgs { junit: args.junit.clone(), ktap: false };
    let took = Duration::from_secs_f64(summary.seconds);
    verdicts.leave("refault demo", &cases(summary), took, &mut std::io::sink())
}

/// A test for each scenario, and one for the run if that failed for a reason of its own.
fn cases(summary: &RunSummary) -> Vec<Case> {
    let scenarios = summary.scenarios.iter().map(|scenario| Case {
        name: format!("{} {}", scenario.name, scenario.label()),
        verdict: match scenario.result {
            RunResult::Pass => CaseVerdict::Pass,
            RunResult::Slow => CaseVerdict::Skip(format!("too slow: {}", scenario.reason)),
            RunResult::Fail => CaseVerdict::Fail(scenario.reason.clone()),
        },
    });
    let run = summary.reason.iter().map(|reason| Case::new("run", Some(reason.clone())));
    scenarios.chain(run).collect()
}
