//! Machine-readable test results: JUnit XML in a file, KTAP on standard output.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use refault_os::message::visible;

/// Options for machine-readable test results.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct VerdictArgs {
    /// Write verdicts as JUnit XML into this file
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Print verdicts as KTAP, and all other output as its comments
    #[arg(long)]
    pub ktap: bool,
}

/// The result of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaseVerdict {
    /// It passed.
    Pass,
    /// It failed, for this reason.
    Fail(String),
    /// It was skipped, for this reason.
    Skip(String),
}

/// One test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// One-line name of the test.
    pub name: String,
    /// Its result.
    pub verdict: CaseVerdict,
}

impl Case {
    /// A test that passed, or failed if there is a failure.
    pub fn new(name: impl Into<String>, failure: Option<String>) -> Self {
        Self { name: name.into(), verdict: failure.map_or(CaseVerdict::Pass, CaseVerdict::Fail) }
    }
}

impl VerdictArgs {
    /// Whether any output is requested.
    pub fn requested(&self) -> bool {
        self.ktap || self.junit.is_some()
    }

    /// Checks that the file can be written, before a long run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn check(&self) -> Result<()> {
        let Some(path) = &self.junit else { return Ok(()) };
        let file = std::fs::File::options().append(true).create(true).open(path);
        file.map(drop).with_context(|| format!("--junit: cannot write {}", path.display()))
    }

    /// Prints text for people; with KTAP, as comments.
    pub fn print(&self, text: &str) {
        let mut out = io::stdout().lock();
        let marked = |line: &str| format!("# {line}\n");
        let text = if self.ktap { text.lines().map(marked).collect() } else { format!("{text}\n") };
        // The reader may have closed the pipe, as `head` does.
        let _ = out.write_all(text.as_bytes());
    }

    /// Writes the results of `suite`, which took `took` in all; KTAP goes to `out`.
    ///
    /// # Errors
    /// The file, or `out`, cannot be written.
    pub fn leave(&self, suite: &str, cases: &[Case], took: Duration, out: &mut impl Write) -> Result<()> {
        if let Some(path) = &self.junit {
            let xml = junit(cases, suite, took);
            std::fs::write(path, xml).with_context(|| format!("--junit: cannot write {}", path.display()))?;
        }
        if self.ktap {
            let written = out.write_all(ktap(cases).as_bytes()).and_then(|()| out.flush());
            written.context("--ktap: cannot write to standard output")?;
        }
        Ok(())
    }
}

/// Formats a plan and a result for each test as KTAP.
pub fn ktap(cases: &[Case]) -> String {
    let mut text = format!("KTAP version 1\n1..{}\n", cases.len());
    for (case, number) in cases.iter().zip(1..) {
        let name = visible(&case.name);
        let _ = match &case.verdict {
            CaseVerdict::Pass => writeln!(text, "ok {number} {name}"),
            CaseVerdict::Fail(_) => writeln!(text, "not ok {number} {name}"),
            CaseVerdict::Skip(why) => writeln!(text, "ok {number} {name} # SKIP {}", visible(why)),
        };
    }
    text
}

fn junit(cases: &[Case], name: &str, took: Duration) -> String {
    let count = |is: fn(&CaseVerdict) -> bool| cases.iter().filter(|case| is(&case.verdict)).count();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" \
         time=\"{:.3}\">\n",
        Escaped(name),
        cases.len(),
        count(|verdict| matches!(verdict, CaseVerdict::Fail(_))),
        count(|verdict| matches!(verdict, CaseVerdict::Skip(_))),
        took.as_secs_f64()
    );
    for Case { name: case, verdict } in cases {
        let _ = write!(xml, "  <testcase classname=\"{}\" name=\"{}\"", Escaped(name), Escaped(case));
        let _ = match verdict {
            CaseVerdict::Pass => writeln!(xml, "/>"),
            CaseVerdict::Fail(why) => writeln!(xml, "><failure message=\"{}\"/></testcase>", Escaped(why)),
            CaseVerdict::Skip(why) => writeln!(xml, "><skipped message=\"{}\"/></testcase>", Escaped(why)),
        };
    }
    xml + "</testsuite>\n"
}

/// Text in an XML attribute; characters that XML cannot represent become question marks.
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
                '\n' => formatter.write_str("&#10;")?,
                character if character.is_control() => formatter.write_char('?')?,
                character => formatter.write_char(character)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_escapes_arbitrary_guest_output() {
        let xml = junit(
            &[Case { name: "a<b>\"&\u{1b}".into(), verdict: CaseVerdict::Fail("x".into()) }],
            "suite",
            Duration::from_millis(1500),
        );
        assert!(xml.contains("name=\"a&lt;b&gt;&quot;&amp;?\"") && xml.contains("time=\"1.500\""), "{xml}");
        assert_eq!(ktap(&[Case::new("\u{1b}[2Jx", None)]), "KTAP version 1\n1..1\nok 1 \\u{1b}[2Jx\n");
        assert!(xml.contains("tests=\"1\" failures=\"1\" skipped=\"0\""), "{xml}");
    }

    #[test]
    fn both_formats_have_the_same_results() {
        let args = VerdictArgs { junit: Some("/nonexistent/x.xml".into()), ktap: false };
        let cases = [Case::new("a", None), Case::new("b", Some("why".into()))];
        let error = args
            .leave("suite", &cases, Duration::ZERO, &mut std::io::sink())
            .expect_err("no folder")
            .to_string();
        assert!(error.contains("--junit: cannot write /nonexistent"), "{error}");
        assert_eq!(ktap(&cases), "KTAP version 1\n1..2\nok 1 a\nnot ok 2 b\n");
        assert!(junit(&cases, "suite", Duration::ZERO).contains("<failure message=\"why\"/>"));
        assert!(args.requested() && !VerdictArgs::default().requested());
    }
}
