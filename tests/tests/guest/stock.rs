//! Shared by all stock suites: verdicts, the list of allowed skips, and the printed table.

use std::io::Write;

use crate::support::workspace;

/// The result of one test of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// With the suite's reason.
    Skipped(String),
    /// With its output.
    Failed(String),
}

/// One test of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) test: String,
    pub(crate) verdict: Verdict,
}

/// Tests that may be skipped if the suite's reason contains `because`. A name that ends in `*` stands for all names that
/// begin so.
pub(crate) struct Skip {
    pub(crate) because: &'static str,
    pub(crate) tests: &'static [&'static str],
}

impl Skip {
    fn allows(&self, test: &str, reason: &str) -> bool {
        reason.contains(self.because) && self.tests.iter().any(|name| names(name, test))
    }
}

fn names(name: &str, test: &str) -> bool {
    match name.strip_suffix('*') {
        Some(start) => test.starts_with(start),
        None => test == name,
    }
}

/// A line of the table.
pub(crate) struct Suite {
    name: String,
    outcomes: Vec<Outcome>,
}

impl Suite {
    pub(crate) fn new(name: &str, outcomes: Vec<Outcome>) -> Self {
        Self { name: name.to_string(), outcomes }
    }

    pub(crate) fn len(&self) -> usize {
        self.outcomes.len()
    }

    fn count(&self, wanted: impl Fn(&Verdict) -> bool) -> usize {
        self.outcomes.iter().filter(|outcome| wanted(&outcome.verdict)).count()
    }

    fn row(&self) -> String {
        let passed = self.count(|verdict| *verdict == Verdict::Passed);
        let skipped = self.count(|verdict| matches!(verdict, Verdict::Skipped(_)));
        let failed = self.count(|verdict| matches!(verdict, Verdict::Failed(_)));
        format!("{:<36} {passed:>7} {skipped:>8} {failed:>7}\n", self.name)
    }

    /// Fails if a test failed.
    pub(crate) fn assert_none_failed(&self) {
        let failed = |outcome: &&Outcome| matches!(outcome.verdict, Verdict::Failed(_));
        let failed: Vec<_> = self.outcomes.iter().filter(failed).collect();
        assert!(failed.is_empty(), "{}: {failed:#?}", self.name);
    }
}

/// Prints the table. Fails if a test failed, if one was skipped that is not in the list, or if one in the list was not
/// skipped: users read the list as this device's limits.
pub(crate) fn judge(suites: &[Suite], skips: &[Skip]) {
    let mut table = format!("\n{:<36} {:>7} {:>8} {:>7}\n", "suite", "passed", "skipped", "failed");
    table.extend(suites.iter().map(Suite::row));
    // Bypasses the test harness, which swallows the output of tests that pass.
    std::io::stdout().lock().write_all(table.as_bytes()).expect("standard output");

    let all = || suites.iter().flat_map(|suite| suite.outcomes.iter().map(|outcome| (&suite.name, outcome)));
    let wrong: Vec<_> = all()
        .filter(|(_, Outcome { test, verdict })| match verdict {
            Verdict::Passed => false,
            Verdict::Failed(_) => true,
            Verdict::Skipped(reason) => !skips.iter().any(|skip| skip.allows(test, reason)),
        })
        .map(|(suite, outcome)| format!("{suite}: {outcome:#?}"))
        .collect();
    assert!(wrong.is_empty(), "failed, or skipped for a reason that is not listed:\n{}", wrong.join("\n"));
    assert!(all().any(|(_, outcome)| outcome.verdict == Verdict::Passed), "nothing was tested");
    let skipped = |because: &str, name: &str| {
        all().any(|(_, Outcome { test, verdict })| match verdict {
            Verdict::Skipped(reason) => names(name, test) && reason.contains(because),
            _ => false,
        })
    };
    let entries = skips.iter().flat_map(|skip| skip.tests.iter().map(|name| (skip.because, *name)));
    let stale: Vec<_> = entries.filter(|(because, name)| !skipped(because, name)).collect();
    assert!(stale.is_empty(), "listed as skipped, and not skipped: {stale:#?}");
}

/// Checks that the document names every suite, and every allowed skip with its reason.
pub(crate) fn explained(skips: &[Skip], suites: &[&str]) {
    let path = workspace().join("docs/stock-suites.md");
    let text = std::fs::read_to_string(path).expect("docs/stock-suites.md");
    let names = skips.iter().flat_map(|skip| skip.tests.iter().copied().chain([skip.because]));
    for name in names.chain(suites.iter().copied()) {
        assert!(text.contains(&format!("`{name}`")), "docs/stock-suites.md does not explain `{name}`");
    }
}

#[test]
fn a_skip_is_allowed_by_test_and_reason_together() {
    let skip = Skip { because: "no window", tests: &["test_mr.MWTest.*", "test_mr.MRTest.test_one"] };
    assert!(skip.allows("test_mr.MWTest.test_any", "There is no window here"));
    assert!(skip.allows("test_mr.MRTest.test_one", "no window"));
    assert!(!skip.allows("test_mr.MRTest.test_one_more", "no window"));
    assert!(!skip.allows("test_mr.MWTest.test_any", "no door"));
}
