//! Checks that dead processes free their PASIDs. The kernel allocates the lowest free one, so if they are freed, the
//! device sees only a few for hundreds of processes.

use std::collections::BTreeSet;

use refault_observe::summary::{RunResult, ScenarioSummary};
use refault_observe::trace::Records;

/// The scenario in which every operation kills a process.
const KILL: &str = "kill";
/// The mode in which its faults have PASIDs.
const PASID: &str = "pasid";
/// Fewer processes prove nothing, because a PASID is freed some time after its process has ended.
const FEWEST: u64 = 16;

/// Fails `kill` if its processes did not reuse PASIDs, and adds their number to the reason.
pub(super) fn judge(scenarios: &mut [ScenarioSummary], records: &Records) {
    let kills = |scenario: &&mut ScenarioSummary| scenario.name == KILL && scenario.mode == PASID;
    for scenario in scenarios.iter_mut().filter(kills) {
        let used = used(records, &scenario.name, &scenario.label());
        if used == 0 || scenario.operations < FEWEST {
            continue;
        }
        if used as u64 * 4 > scenario.operations {
            scenario.result = RunResult::Fail;
            scenario.reason =
                format!("{} processes used {used} PASIDs: they are not freed", scenario.operations);
        } else if scenario.result == RunResult::Pass {
            scenario.reason = format!("{}; {used} PASIDs in all", scenario.reason);
        }
    }
}

/// Number of PASIDs with faults in a scenario.
fn used(records: &Records, name: &str, mode: &str) -> usize {
    let index = records.scenarios.iter().position(|span| span.name == name && span.mode == mode);
    let of_scenario = records.faults.iter().filter(|fault| Some(usize::from(fault.scenario)) == index);
    of_scenario.filter_map(|fault| fault.space.pasid()).collect::<BTreeSet<_>>().len()
}
