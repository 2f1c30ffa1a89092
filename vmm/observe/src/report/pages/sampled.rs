//! Sampled requests: durations of their steps.

use super::section;
use crate::report::charts::cumulative::{self, Curve};
use crate::report::digest::PER_DECADE;
use crate::report::digest::bins::LogBins;
use crate::report::markup::{HtmlTable, Text};
use crate::report::units::{count, duration, plural};
use crate::trace::{Durations, RequestTimes};

/// The section; empty if there are no sampled requests.
pub(super) fn requests(times: &RequestTimes) -> String {
    let whole = &times.whole;
    if whole.count() == 0 {
        return String::new();
    }
    let mut table = HtmlTable::new(&[
        ("step", ""),
        ("requests", "requests in which the step was recorded; otherwise it is part of the one before"),
        ("mean", ""),
        ("p50", "the median"),
        ("p95", "95 of 100 are at most this long"),
        ("p99", "99 of 100 are at most this long"),
        ("p99.9", "999 of 1000 are at most this long"),
        ("max", "the longest"),
    ]);
    let seen = times.steps().filter(|(_, step)| step.count() > 0);
    seen.for_each(|(name, step)| table.row(&Text(name).to_string(), &cells(step)));
    table.row("<b>whole request</b>", &cells(whole));
    let shortest = whole.recorded().map(|(ns, _)| ns).find(|&ns| ns > 0).unwrap_or(1);
    let bins = LogBins::around(shortest, whole.max().max(1), PER_DECADE);
    let curve = Curve { name: "request", class: "whole".into(), durations: whole };
    let text = format!(
        "<p>A sample of the requests was followed from doorbell to completion, with or without a fault: {}. A missing page counts as part of the step that hit it, usually translation.</p>\n{}{}",
        plural(whole.count(), "request", "requests"),
        table.finish("numbers requests"),
        cumulative::charts(&[curve], &bins, "time of a sampled request"),
    );
    section("sampled", "Sampled requests", &text)
}

fn cells(durations: &Durations) -> [String; 7] {
    let at = |share| duration(durations.at(share));
    let (mean, max) = (duration(durations.mean()), duration(durations.max()));
    [count(durations.count()), mean, at(0.5), at(0.95), at(0.99), at(0.999), max]
}
