//! Verdicts of the tests that ran in the guest, parsed from the command's output: lines of KTAP (kernel:
//! Documentation/dev-tools/ktap.rst), the lines `storm=NAME result=…` of `refault-storm`, and those of Python's unittest
//! with `-v`, which is what pyverbs' suites print. A command that prints none of them is one test with its exit status as the
//! verdict, 4 for a skip, as in the kernel's selftests.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use refault_bus::sync::lock;
use refault_observe::report::verdicts::{Case, CaseVerdict};
use refault_os::message::visible;

/// The exit status of a test that was skipped.
pub(crate) const SKIPPED: u8 = 4;
/// Bytes of a line that are parsed.
const LINE_MAX: usize = 16 << 10;
/// Maximum number of tests that are kept: a guest may print any number of lines.
const CASES_MAX: usize = if cfg!(test) { 100 } else { 65_536 };

/// The verdicts so far.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    cases: Mutex<Vec<Case>>,
    /// A test of Python's unittest with a description: its verdict is on the next line.
    described: Mutex<Option<String>>,
}

impl Verdicts {
    /// A writer that passes everything on to `output` and parses each line. With `ktap`, lines that are not KTAP become
    /// comments.
    pub(crate) fn watch(
        self: &Arc<Self>,
        output: Box<dyn Write + Send>,
        ktap: bool,
    ) -> Box<dyn Write + Send> {
        Box::new(VerdictFilter { verdicts: self.clone(), output, ktap, line: Vec::new() })
    }

    fn take(&self, line: &str) {
        let Some(case) = ktap_line(line).or_else(|| storm(line)).or_else(|| self.unittest(line)) else {
            return;
        };
        let mut cases = lock(&self.cases);
        if cases.len() < CASES_MAX {
            cases.push(case);
        }
    }

    /// `test_name (module.Class.test_name) ... ok`; a test with a description has that between the name and the verdict, on
    /// a line of its own.
    fn unittest(&self, line: &str) -> Option<Case> {
        let mut described = lock(&self.described);
        let named = line.split_once(" (").filter(|(name, _)| name.starts_with("test") && !name.contains(' '));
        let Some((before, verdict)) = line.rsplit_once(" ... ") else {
            *described = named.filter(|_| line.ends_with(')')).map(|_| line.to_owned());
            return None;
        };
        let name = if named.is_some() { before.to_owned() } else { described.take()? };
        let verdict = match verdict.trim_end() {
            "ok" => CaseVerdict::Pass,
            "FAIL" | "ERROR" => CaseVerdict::Fail(line.into()),
            skipped => CaseVerdict::Skip(skipped.strip_prefix("skipped ")?.trim_matches(['\'', '"']).into()),
        };
        Some(Case { name, verdict })
    }

    /// The tests; or, without any, the command as one test named `name`. A command that failed without a failed test
    /// adds itself as one.
    pub(crate) fn cases(&self, name: &str, status: u8) -> Vec<Case> {
        let mut cases = lock(&self.cases).clone();
        let failed = cases.iter().any(|case| matches!(case.verdict, CaseVerdict::Fail(_)));
        let verdict = match status {
            0 => CaseVerdict::Pass,
            SKIPPED => CaseVerdict::Skip("exit status 4".into()),
            status => CaseVerdict::Fail(format!("exit status {status}")),
        };
        if cases.is_empty() || matches!(verdict, CaseVerdict::Fail(_)) && !failed {
            cases.push(Case { name: name.into(), verdict });
        }
        cases
    }
}

/// `ok 1 - name`, `not ok 2 name`, `ok 3 name # SKIP why`, at the start of a line: those further in belong to a test that
/// has its own line.
fn ktap_line(line: &str) -> Option<Case> {
    let (failed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (true, rest),
        None => (false, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    number.parse::<u32>().ok()?;
    let (name, directive) = rest.split_once('#').unwrap_or((rest, ""));
    let name = name.trim().trim_start_matches("- ").trim();
    let directive = directive.trim();
    let verdict = match (failed, directive.get(..4)) {
        (_, Some(word)) if word.eq_ignore_ascii_case("skip") => {
            CaseVerdict::Skip(directive.get(4..).unwrap_or_default().trim().into())
        }
        (true, _) => CaseVerdict::Fail(line.into()),
        (false, _) => CaseVerdict::Pass,
    };
    let name = if name.is_empty() { number } else { name };
    Some(Case { name: name.into(), verdict })
}

fn storm(line: &str) -> Option<Case> {
    let mut words = line.strip_prefix("storm=")?.split(' ');
    let name = format!("storm {}", words.next()?);
    let verdict = match words.find_map(|word| word.strip_prefix("result="))? {
        "pass" => CaseVerdict::Pass,
        _ => CaseVerdict::Fail(line.into()),
    };
    Some(Case { name, verdict })
}

/// A writer that parses the command's output.
struct VerdictFilter {
    verdicts: Arc<Verdicts>,
    output: Box<dyn Write + Send>,
    ktap: bool,
    line: Vec<u8>,
}

impl Write for VerdictFilter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.ktap {
            self.output.write_all(bytes)?;
        }
        for byte in bytes {
            if *byte == b'\n' {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                let line = line.trim_end_matches('\r');
                self.verdicts.take(line);
                if self.ktap {
                    writeln!(self.output, "# {}", visible(line))?;
                }
            } else if self.line.len() < LINE_MAX {
                self.line.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use refault_observe::report::verdicts::ktap;

    fn seen(text: &str) -> Arc<Verdicts> {
        let verdicts = Arc::<Verdicts>::default();
        verdicts.watch(Box::new(io::sink()), false).write_all(text.as_bytes()).expect("a sink");
        verdicts
    }

    #[test]
    fn ktap_in_the_output_is_taken_test_by_test() {
        let text = "TAP version 13\n1..4\nok 1 - first\nnot ok 2 second\nok 3 third # SKIP no device\n    ok 1 inner\n\
                    ok then\nok 4\n";
        let cases = seen(text).cases("command", 1);
        let verdicts: Vec<_> = cases.iter().map(|case| (&*case.name, case.verdict.clone())).collect();
        assert_eq!(
            verdicts,
            [
                ("first", CaseVerdict::Pass),
                ("second", CaseVerdict::Fail("not ok 2 second".into())),
                ("third", CaseVerdict::Skip("no device".into())),
                ("4", CaseVerdict::Pass),
            ]
        );
    }

    #[test]
    fn tests_without_end_and_endless_lines_take_no_more_memory() {
        let many: String = (0..2 * CASES_MAX).map(|number| format!("ok {number} test\n")).collect();
        assert_eq!(seen(&many).cases("command", 0).len(), CASES_MAX);
        let long = format!("ok 1 {}\n", "x".repeat(3 * LINE_MAX));
        assert!(seen(&long).cases("command", 0)[0].name.len() <= LINE_MAX);
    }

    #[test]
    fn storms_are_tests() {
        let text = "storm=fork result=pass faults=1\ntrial=x result=fail\nstorm=swap result=fail faults=2\n";
        assert_eq!(
            ktap(&seen(text).cases("storms", 1)),
            "KTAP version 1\n1..2\nok 1 storm fork\nnot ok 2 storm swap\n"
        );
    }

    #[test]
    fn tests_of_pythons_unittest_are_tests() {
        let text = "test_create_ah (tests.test_addr.AHTest.test_create_ah)\nTest ibv_create_ah. ... ok\n\
                    test_a (tests.T.test_a) ... ok\ntest_b (tests.T) ... skipped 'no \\'DC\\' here'\n\
                    test_c (tests.T.test_c) ... FAIL\ntest_d (tests.T.test_d) ... ERROR\nwaiting ... ok\n\
                    test_e (tests.T.test_e) ... \n";
        let cases = seen(text).cases("suite", 1);
        let verdicts: Vec<_> = cases.iter().map(|case| (&*case.name, case.verdict.clone())).collect();
        let fail = |line: &str| CaseVerdict::Fail(line.into());
        assert_eq!(
            verdicts,
            [
                ("test_create_ah (tests.test_addr.AHTest.test_create_ah)", CaseVerdict::Pass),
                ("test_a (tests.T.test_a)", CaseVerdict::Pass),
                ("test_b (tests.T)", CaseVerdict::Skip("no \\'DC\\' here".into())),
                ("test_c (tests.T.test_c)", fail("test_c (tests.T.test_c) ... FAIL")),
                ("test_d (tests.T.test_d)", fail("test_d (tests.T.test_d) ... ERROR")),
            ]
        );
    }

    #[test]
    fn a_command_without_tests_is_one_test() {
        let ktap = |status| ktap(&seen("hello\n").cases("true", status));
        assert!(ktap(0).ends_with("\nok 1 true\n"));
        assert!(ktap(SKIPPED).ends_with("\nok 1 true # SKIP exit status 4\n"));
        assert!(ktap(123).ends_with("\nnot ok 1 true\n"));
    }

    #[test]
    fn a_command_that_fails_after_its_tests_has_failed() {
        assert!(ktap(&seen("ok 1 a\n").cases("command", 124)).contains("not ok 2 command"));
    }

    #[test]
    fn with_ktap_other_lines_are_comments() {
        let shared = Arc::new(Mutex::new(Vec::new()));
        struct Into(Arc<Mutex<Vec<u8>>>);
        impl Write for Into {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("not poisoned").write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut watch = Arc::<Verdicts>::default().watch(Box::new(Into(shared.clone())), true);
        watch.write_all(b"one\r\n\x1b[2Jok 1 a\nhalf").expect("a vector");
        assert_eq!(*shared.lock().expect("not poisoned"), b"# one\n# \\u{1b}[2Jok 1 a\n");
    }
}
