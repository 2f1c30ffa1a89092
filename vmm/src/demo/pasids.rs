//! Do dead processes give their PASIDs back? The kernel hands out the lowest free one, so what the device sees
//! tells: if they come back, hundreds of processes get by with a few.

use std::collections::BTreeSet;

use refault_observe::summary::{RunResult, ScenarioSummary};
use refault_observe::trace::Records;

/// The scenario whose every operation is a process that dies.
const KILL: &str = "kill";
/// The mode in which its faults bear PASIDs.
const PASID: &str = "pasid";
/// Fewer processes prove nothing: a PASID is given back some time after its process is gone.
const FEWEST: u64 = 16;

/// Fails `kill` if its processes had a PASID of their own each, and says how many there were.
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
                format!("{} processes used {used} PASIDs: they do not come back", scenario.operations);
        } else if scenario.result == RunResult::Pass {
            scenario.reason = format!("{}; {used} PASIDs in all", scenario.reason);
        }
    }
}

/// How many PASIDs faulted in a scenario.
fn used(records: &Records, name: &str, mode: &str) -> usize {
    let index = records.scenarios.iter().position(|span| span.name == name && span.mode == mode);
    let of_scenario = records.faults.iter().filter(|fault| Some(usize::from(fault.scenario)) == index);
    of_scenario.filter_map(|fault| fault.space.pasid()).collect::<BTreeSet<_>>().len()
}
