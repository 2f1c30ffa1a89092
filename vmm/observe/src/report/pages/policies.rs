//! The part of a sweep's page about what a responder does when its page is missing: who wins, where, and why.

use crate::report::markup::{HtmlTable, Text};
use crate::report::sweep::SweepTable;
use crate::report::units::FigureUnit;

/// The axes that make up a policy: the first one is what the responder does.
const POLICY: [&str; 2] = ["device.remote_faults", "wire.prefault"];

/// What a policy does, and what it costs.
const ABOUT: [(&str, &str, &str); 4] = [
    (
        "stall",
        "keeps the packet and what follows it, and answers when the page is there",
        "no packet is sent twice and no time is lost, but the responder needs a buffer of a window for each queue pair that \
         faults, and a fault longer than the ACK timeout makes the requester send all again",
    ),
    (
        "rnr",
        "drops the packet and sends an RNR NAK: the requester waits as long as that says, and sends all again from there",
        "no buffer, but the wait is rounded up to a multiple of the timer: too short a timer repeats a window each time, too \
         long a one adds to every fault",
    ),
    (
        "resume-nak",
        "the same with a long timer, and a NAK for the packet when the page is there: the requester sends at once",
        "no buffer, one repetition and one more round trip for each fault, whatever it takes; InfiniBand has no such rule, so \
         both ends must know it",
    ),
    (
        "drop",
        "drops the packet and says nothing: the next packet causes a NAK, or the ACK timeout ends the wait",
        "nothing to build, and every fault costs up to an ACK timeout; so many faults in a row fail the request",
    ),
];

/// Figures that policies are compared by, what they mean, and whether more of them is better.
const CRITERIA: [(&str, &str, bool); 8] = [
    ("mb_per_s", "goodput of all queue pairs", true),
    ("faulting_p50_ns", "a message that faults: median", false),
    ("faulting_p99_ns", "a message that faults: 99 %", false),
    ("neighbour_p99_ns", "another message of such a queue pair: 99 %", false),
    ("bystander_p99_ns", "a message of a queue pair that never faults: 99 %", false),
    ("sent_per_byte", "bytes sent for each byte that arrives", false),
    ("held_peak_bytes", "most bytes kept at the responder", false),
    ("failed", "requests that failed", false),
];

/// Figures whose winner is shown for each condition.
const BY_CONDITION: [&str; 3] = ["mb_per_s", "faulting_p50_ns", "faulting_p99_ns"];

/// A policy: its name, and the place of its value on each axis that makes it up.
struct Policy {
    name: String,
    places: Vec<(usize, usize)>,
}

/// The section's content, if policies were compared.
pub(super) fn content(table: &SweepTable) -> Option<String> {
    let of_policy: Vec<usize> =
        POLICY.iter().filter_map(|name| table.axes.iter().position(|axis| axis.name == *name)).collect();
    if of_policy.first().is_none_or(|&first| table.axes[first].name != POLICY[0]) {
        return None;
    }
    let policies = policies(table, &of_policy);
    let others: Vec<usize> = (0..table.axes.len()).filter(|axis| !of_policy.contains(axis)).collect();
    let conditions = conditions(table, &others);
    let sections = [
        about(table, of_policy[0]),
        totals(table, &policies, &conditions),
        winners(table, &policies, &conditions, &others),
    ];
    Some(sections.concat())
}

fn policies(table: &SweepTable, of_policy: &[usize]) -> Vec<Policy> {
    let mut policies = vec![Policy { name: String::new(), places: Vec::new() }];
    for &axis in of_policy {
        let with = |policy: &Policy, (place, value): (usize, &String)| Policy {
            name: match value.as_str() {
                "true" => format!("{} + prefault", policy.name),
                "false" => policy.name.clone(),
                value => value.to_owned(),
            },
            places: policy.places.iter().copied().chain([(axis, place)]).collect(),
        };
        policies = policies
            .iter()
            .flat_map(|policy| {
                table.axes[axis]
                    .values
                    .iter()
                    .enumerate()
                    .map(|value| with(policy, value))
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    policies
}

/// All combinations of values of the other axes that have a finished point, in order.
fn conditions(table: &SweepTable, others: &[usize]) -> Vec<Vec<usize>> {
    let mut found: Vec<Vec<usize>> =
        table.rows.iter().map(|row| others.iter().map(|&axis| row.point[axis]).collect()).collect();
    found.sort();
    found.dedup();
    found
}

/// What the policies are.
fn about(table: &SweepTable, axis: usize) -> String {
    let mut rows = HtmlTable::new(&[("policy", ""), ("the responder", ""), ("what it costs", "")]);
    for (name, does, costs) in ABOUT {
        if table.axes[axis].values.iter().any(|value| value == name) {
            rows.row(name, &[does.into(), costs.into()]);
        }
    }
    let prefault = "<p>With <b>prefault</b> the responder also asks for all pages of a message as soon as its first packet says \
                    where they are: faults that would come one after the other are handled together.</p>\n";
    format!("{}{prefault}", rows.finish("words"))
}

/// Each policy against the best one, over all conditions.
fn totals(table: &SweepTable, policies: &[Policy], conditions: &[Vec<usize>]) -> String {
    let mut columns = vec![("", "")];
    columns.extend(policies.iter().map(|policy| (policy.name.as_str(), "")));
    let mut rows = HtmlTable::new(&columns);
    for (name, about, more_is_better) in CRITERIA {
        let Some(figure) = table.figures.iter().position(|known| known == name) else { continue };
        let unit = FigureUnit::of(name);
        let cells: Vec<String> = policies
            .iter()
            .map(|policy| total(table, policies, conditions, (figure, more_is_better), policy).cell(unit))
            .collect();
        rows.row(&Text(about).to_string(), &cells);
    }
    format!(
        "<h3>Over all {} conditions</h3>\n<p>The mean, and how often the policy is the best one or within 1 % of it.</p>\n{}",
        conditions.len(),
        rows.finish("numbers")
    )
}

/// A policy's mean of a figure, and its wins.
struct Total {
    mean: Option<f64>,
    wins: usize,
    of: usize,
}

impl Total {
    fn cell(&self, unit: FigureUnit) -> String {
        let Some(mean) = self.mean else { return "–".into() };
        let share = format!("{}<small>best {} of {}</small>", unit.format(mean), self.wins, self.of);
        if self.wins * 2 >= self.of { format!("<b>{share}</b>") } else { share }
    }
}

fn total(
    table: &SweepTable,
    policies: &[Policy],
    conditions: &[Vec<usize>],
    (figure, more): (usize, bool),
    policy: &Policy,
) -> Total {
    let mut total = Total { mean: None, wins: 0, of: 0 };
    let mut sum = 0.0;
    for condition in conditions {
        let Some(own) = value(table, policy, condition, figure) else { continue };
        let best = best(table, policies, condition, (figure, more)).map_or(own, |(_, best)| best);
        sum += own;
        total.of += 1;
        total.wins += usize::from(is_near(own, best, more));
    }
    total.mean = (total.of > 0).then(|| sum / total.of as f64);
    total
}

/// Which policy is best under each condition.
fn winners(table: &SweepTable, policies: &[Policy], conditions: &[Vec<usize>], others: &[usize]) -> String {
    let shown: Vec<_> = CRITERIA
        .into_iter()
        .filter(|(name, ..)| BY_CONDITION.contains(name))
        .filter_map(|(name, about, more)| {
            table.figures.iter().position(|known| known == name).map(|figure| (figure, about, more))
        })
        .collect();
    let mut columns: Vec<(&str, &str)> =
        others.iter().map(|&axis| (table.axes[axis].name.as_str(), "")).collect();
    if columns.is_empty() {
        columns.push(("", ""));
    }
    columns.extend(shown.iter().map(|&(_, about, _)| (about, "")));
    let mut rows = HtmlTable::new(&columns);
    for condition in conditions {
        let values = others
            .iter()
            .zip(condition)
            .map(|(&axis, &place)| Text(&table.axes[axis].values[place]).to_string());
        let mut cells: Vec<String> = values.collect();
        let header = if cells.is_empty() { String::new() } else { cells.remove(0) };
        cells.extend(
            shown.iter().map(|&(figure, _, more)| winner(table, policies, condition, (figure, more))),
        );
        rows.row(&header, &cells);
    }
    format!(
        "<h3>Which policy wins where</h3>\n<p>The best one, and what the worst one makes of it.</p>\n{}",
        rows.finish("numbers")
    )
}

fn winner(
    table: &SweepTable,
    policies: &[Policy],
    condition: &[usize],
    (figure, more): (usize, bool),
) -> String {
    let (Some((best, value)), Some((worst, least))) =
        (best(table, policies, condition, (figure, more)), best(table, policies, condition, (figure, !more)))
    else {
        return "–".into();
    };
    let unit = FigureUnit::of(&table.figures[figure]);
    format!(
        "<b>{}</b> {}<small>{} {}</small>",
        Text(&best.name),
        unit.format(value),
        Text(&worst.name),
        unit.format(least)
    )
}

/// The best policy under a condition, the first of equals, and its value.
fn best<'p>(
    table: &SweepTable,
    policies: &'p [Policy],
    condition: &[usize],
    (figure, more): (usize, bool),
) -> Option<(&'p Policy, f64)> {
    let values =
        policies.iter().filter_map(|policy| Some((policy, value(table, policy, condition, figure)?)));
    values.reduce(|best, next| if (next.1 > best.1) == more && next.1 != best.1 { next } else { best })
}

fn is_near(own: f64, best: f64, more_is_better: bool) -> bool {
    if more_is_better { own >= best * 0.99 } else { own <= best * 1.01 }
}

fn value(table: &SweepTable, policy: &Policy, condition: &[usize], figure: usize) -> Option<f64> {
    let mut point = vec![None; table.axes.len()];
    policy.places.iter().for_each(|&(axis, place)| point[axis] = Some(place));
    let mut rest = condition.iter();
    let point: Option<Vec<usize>> =
        point.into_iter().map(|place| place.or_else(|| rest.next().copied())).collect();
    table.value(&point?, figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIDY: &str = "device.remote_faults,wire.prefault,timing.minor,mb_per_s,faulting_p50_ns\n\
        stall,false,20 us,100,5000\nstall,true,20 us,100,4000\ndrop,false,20 us,50,90000\ndrop,true,20 us,60,80000\n\
        stall,false,1 ms,10,9000\nstall,true,1 ms,20,8000\ndrop,false,1 ms,30,7000\n";

    fn table(axes: &[&str]) -> SweepTable {
        SweepTable::from_csv("s", TIDY, axes).unwrap()
    }

    #[test]
    fn the_best_policy_is_named_for_each_condition_and_counted() {
        let html = content(&table(&["device.remote_faults", "wire.prefault", "timing.minor"])).unwrap();
        let html = html.replace('\u{a0}', " ");
        for expected in [
            "<th scope=\"col\">stall + prefault</th>",
            "Over all 2 conditions",
            "best 1 of 2",
            "<b>stall + prefault</b> 4.00 µs<small>drop 90.0 µs</small>",
            "<b>drop</b> 30 MB/s<small>stall 10 MB/s</small>",
        ] {
            assert!(html.contains(expected), "{expected}: {html}");
        }
    }

    #[test]
    fn other_sweeps_have_no_such_part() {
        assert!(content(&table(&["timing.minor"])).is_none());
        assert!(content(&table(&["wire.prefault"])).is_none());
        assert!(content(&table(&["device.remote_faults"])).is_some());
    }
}
