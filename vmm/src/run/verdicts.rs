//! Verdicts of what ran in the guest, for machines that collect them: JUnit XML in a file, KTAP on standard output.
//!
//! They are read out of the command's standard output: lines of KTAP (kernel: Documentation/dev-tools/ktap.rst), and the
//! lines `storm=NAME result=…` of `refault-storm`. A command that prints neither is one test by its exit status, 4 for a
//! skip, as the kernel's selftests have it.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

/// The exit status of a test that was skipped.
pub(super) const SKIPPED: u8 = 4;
/// Longest line that is looked at.
const LINE_MAX: usize = 16 << 10;
/// Most tests that are kept: a guest may print any number of lines.
const CASES_MAX: usize = 65_536;

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    /// With the line that says so.
    Fail(String),
    /// With the reason.
    Skip(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Case {
    name: String,
    verdict: Verdict,
}

/// All that was seen.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    cases: Mutex<Vec<Case>>,
}

impl Verdicts {
    /// A writer that hands all on to `output` and looks at each line. With `ktap`, lines that are not KTAP's become
    /// comments.
    pub(super) fn watch(
        self: &Arc<Self>,
        output: Box<dyn Write + Send>,
        ktap: bool,
    ) -> Box<dyn Write + Send> {
        Box::new(Watch { verdicts: self.clone(), output, ktap, line: Vec::new() })
    }

    fn take(&self, line: &str) {
        let Some(case) = ktap(line).or_else(|| storm(line)) else { return };
        let mut cases = self.cases.lock().unwrap_or_else(PoisonError::into_inner);
        if cases.len() < CASES_MAX {
            cases.push(case);
        }
    }

    /// The tests, or the command as one, named `name`, if it told of none. A command that failed has failed, whatever its
    /// tests say.
    fn cases(&self, name: &str, status: u8) -> Vec<Case> {
        let mut cases = self.cases.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let failed = cases.iter().any(|case| matches!(case.verdict, Verdict::Fail(_)));
        let verdict = match status {
            0 => Verdict::Pass,
            SKIPPED => Verdict::Skip("exit status 4".into()),
            status => Verdict::Fail(format!("exit status {status}")),
        };
        if cases.is_empty() || matches!(verdict, Verdict::Fail(_)) && !failed {
            cases.push(Case { name: name.into(), verdict });
        }
        cases
    }

    /// Writes JUnit XML.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write_junit(&self, path: &Path, name: &str, status: u8, took: Duration) -> Result<()> {
        let xml = junit(&self.cases(name, status), name, took);
        std::fs::write(path, xml).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The plan and a verdict for each test, as KTAP.
    pub(super) fn ktap(&self, name: &str, status: u8) -> String {
        let cases = self.cases(name, status);
        let mut text = format!("KTAP version 1\n1..{}\n", cases.len());
        for (case, number) in cases.iter().zip(1..) {
            let _ = match &case.verdict {
                Verdict::Pass => writeln!(text, "ok {number} {}", case.name),
                Verdict::Fail(_) => writeln!(text, "not ok {number} {}", case.name),
                Verdict::Skip(why) => writeln!(text, "ok {number} {} # SKIP {why}", case.name),
            };
        }
        text
    }
}

/// `ok 1 - name`, `not ok 2 name`, `ok 3 name # SKIP why`, at the start of a line: those further in belong to a test that
/// has a line of its own.
fn ktap(line: &str) -> Option<Case> {
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
            Verdict::Skip(directive.get(4..).unwrap_or_default().trim().into())
        }
        (true, _) => Verdict::Fail(line.into()),
        (false, _) => Verdict::Pass,
    };
    let name = if name.is_empty() { number } else { name };
    Some(Case { name: name.into(), verdict })
}

fn storm(line: &str) -> Option<Case> {
    let mut words = line.strip_prefix("storm=")?.split(' ');
    let name = format!("storm {}", words.next()?);
    let verdict = match words.find_map(|word| word.strip_prefix("result="))? {
        "pass" => Verdict::Pass,
        _ => Verdict::Fail(line.into()),
    };
    Some(Case { name, verdict })
}

fn junit(cases: &[Case], name: &str, took: Duration) -> String {
    let count = |wanted: fn(&Verdict) -> bool| cases.iter().filter(|case| wanted(&case.verdict)).count();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" \
         time=\"{:.3}\">\n",
        Escaped(name),
        cases.len(),
        count(|verdict| matches!(verdict, Verdict::Fail(_))),
        count(|verdict| matches!(verdict, Verdict::Skip(_))),
        took.as_secs_f64()
    );
    for Case { name: case, verdict } in cases {
        let _ = write!(xml, "  <testcase classname=\"{}\" name=\"{}\"", Escaped(name), Escaped(case));
        let _ = match verdict {
            Verdict::Pass => writeln!(xml, "/>"),
            Verdict::Fail(why) => writeln!(xml, "><failure message=\"{}\"/></testcase>", Escaped(why)),
            Verdict::Skip(why) => writeln!(xml, "><skipped message=\"{}\"/></testcase>", Escaped(why)),
        };
    }
    xml + "</testsuite>\n"
}

/// Text in an attribute; characters that XML cannot hold become a question mark.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\t' => formatter.write_str("&#9;")?,
                character if character.is_control() => formatter.write_char('?')?,
                character => formatter.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// The command's output on its way.
struct Watch {
    verdicts: Arc<Verdicts>,
    output: Box<dyn Write + Send>,
    ktap: bool,
    line: Vec<u8>,
}

impl Write for Watch {
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
                    writeln!(self.output, "# {line}")?;
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
                ("first", Verdict::Pass),
                ("second", Verdict::Fail("not ok 2 second".into())),
                ("third", Verdict::Skip("no device".into())),
                ("4", Verdict::Pass),
            ]
        );
    }

    #[test]
    fn storms_are_tests() {
        let text = "storm=fork result=pass faults=1\ntrial=x result=fail\nstorm=swap result=fail faults=2\n";
        let ktap = seen(text).ktap("storms", 1);
        assert_eq!(ktap, "KTAP version 1\n1..2\nok 1 storm fork\nnot ok 2 storm swap\n");
    }

    #[test]
    fn a_command_without_tests_is_one_by_its_status() {
        let ktap = |status| seen("hello\n").ktap("true", status);
        assert!(ktap(0).ends_with("\nok 1 true\n"));
        assert!(ktap(SKIPPED).ends_with("\nok 1 true # SKIP exit status 4\n"));
        assert!(ktap(123).ends_with("\nnot ok 1 true\n"));
    }

    #[test]
    fn a_command_that_dies_behind_its_tests_has_failed() {
        assert!(seen("ok 1 a\n").ktap("command", 124).contains("not ok 2 command"));
    }

    #[test]
    fn xml_holds_whatever_a_guest_prints() {
        let xml = junit(
            &[Case { name: "a<b>\"&\u{1b}".into(), verdict: Verdict::Fail("x".into()) }],
            "suite",
            Duration::from_millis(1500),
        );
        assert!(xml.contains("name=\"a&lt;b&gt;&quot;&amp;?\"") && xml.contains("time=\"1.500\""), "{xml}");
        assert!(xml.contains("tests=\"1\" failures=\"1\" skipped=\"0\""), "{xml}");
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
        watch.write_all(b"one\r\nok 1 a\nhalf").expect("a vector");
        assert_eq!(*shared.lock().expect("not poisoned"), b"# one\n# ok 1 a\n");
    }
}
