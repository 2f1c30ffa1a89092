//! `refault doctor`: what this machine can do, what would be used, what is missing and the command that installs it.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use refault_guest::archive::mirror::Mirror;
use refault_guest::cache::{CACHE_VARIABLE, location};
use refault_guest::image::newest;
use refault_hosts::qemu::Emulator;
use refault_machine::kvm::probe::{KvmStatus, probe};
use refault_os::sandbox::Support;
use refault_os::tools::{IMAGE_TOOLS, ROOTLESS_TOOLS, Tool, install_line, is_root, missing};

/// Free space that building the image needs at its peak, in MiB.
const BUILD_SPACE_MIB: u64 = 3000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Good,
    /// Works, with a limitation.
    Note,
    /// Has to be fixed before guests can run.
    Bad,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    grade: Grade,
    subject: &'static str,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.grade {
            Grade::Good => "ok     ",
            Grade::Note => "note   ",
            Grade::Bad => "MISSING",
        };
        write!(formatter, "{mark}  {:<12}  {}", self.subject, self.text)
    }
}

/// Runs all checks and prints their results. The exit status is 1 if something required is missing.
///
/// # Errors
/// Standard output cannot be written.
pub fn doctor() -> Result<u8> {
    let verdict = probe();
    let mut findings =
        vec![kvm(&verdict), emulation(&verdict, Emulator::cached().and_then(|qemu| qemu.version().ok()))];
    findings.extend(tools(missing(IMAGE_TOOLS), missing(ROOTLESS_TOOLS), is_root()));
    findings.extend([sandbox(Support::of_this_kernel()), mirror(Mirror::find()), cache(), image()]);
    for finding in &findings {
        println!("{finding}");
    }
    println!("{}", conclusion(&findings, &verdict));
    Ok(u8::from(findings.iter().any(|finding| finding.grade == Grade::Bad)))
}

fn finding(grade: Grade, subject: &'static str, text: impl Into<String>) -> Finding {
    Finding { grade, subject, text: text.into() }
}

fn kvm(verdict: &KvmStatus) -> Finding {
    match verdict {
        KvmStatus::Works => finding(Grade::Good, "kvm", "/dev/kvm runs code, SSE included"),
        KvmStatus::Absent(why) | KvmStatus::Broken(why) => finding(Grade::Note, "kvm", why),
    }
}

/// QEMU is needed only without a working KVM.
fn emulation(verdict: &KvmStatus, cached: Option<String>) -> Finding {
    match (cached, verdict) {
        (Some(version), _) => finding(Grade::Good, "qemu", format!("{version}, in the cache")),
        (None, KvmStatus::Works) => finding(Grade::Note, "qemu", "not downloaded (not needed here)"),
        (None, _) => finding(Grade::Note, "qemu", "not downloaded (done when needed: about 40 MB)"),
    }
}

fn tools(lacking: Vec<Tool>, rootless: Vec<Tool>, root: bool) -> Vec<Finding> {
    let mut lacking = lacking;
    if !root {
        lacking.extend(rootless);
    }
    let line = install_line(&lacking);
    vec![match (lacking.is_empty(), root) {
        (true, true) => finding(Grade::Good, "image tools", "all installed"),
        (true, false) => finding(Grade::Good, "image tools", "all installed, used in a user namespace"),
        (false, true) => finding(Grade::Note, "image tools", format!("{line} (done when needed)")),
        (false, false) => finding(Grade::Bad, "image tools", format!("as root: {line}")),
    }]
}

fn sandbox(support: Support) -> Finding {
    match support.missing() {
        None => {
            let text = format!("seccomp, and Landlock with ABI {}", support.landlock);
            finding(Grade::Good, "sandbox", text)
        }
        Some(missing) => finding(Grade::Note, "sandbox", missing),
    }
}

fn mirror(found: Result<Mirror>) -> Finding {
    match found {
        Ok(mirror) => finding(Grade::Good, "mirror", mirror.main),
        Err(error) => finding(Grade::Bad, "mirror", error.to_string()),
    }
}

fn cache() -> Finding {
    let root = match location() {
        Ok(root) => root,
        Err(error) => return finding(Grade::Bad, "cache", error.to_string()),
    };
    let text = format!("{} ({CACHE_VARIABLE} changes that)", root.display());
    match free_mib(&root) {
        Some(free) if free < BUILD_SPACE_MIB => finding(
            Grade::Bad,
            "cache",
            format!("{text}: {free} MiB free, building the image takes up to {BUILD_SPACE_MIB}"),
        ),
        Some(free) => finding(Grade::Good, "cache", format!("{text}: {free} MiB free")),
        None => finding(Grade::Note, "cache", text),
    }
}

fn image() -> Finding {
    let newest = location().ok().and_then(|root| newest(&root));
    match newest.and_then(|image| Some((image.manifest().ok()?, image))) {
        Some((manifest, image)) => finding(
            Grade::Good,
            "guest image",
            format!(
                "kernel {}, rdma-core {}, in {}",
                manifest.kernel,
                manifest.rdma_core,
                image.folder().display()
            ),
        ),
        None => {
            finding(Grade::Note, "guest image", "not built yet; `refault guest build` or any run makes it")
        }
    }
}

fn conclusion(findings: &[Finding], verdict: &KvmStatus) -> String {
    let worst = findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Good);
    match (worst, verdict) {
        (Grade::Bad, _) => "Install what is marked MISSING, then guests can run.".into(),
        (_, KvmStatus::Works) => "Guests run on this machine's KVM.".into(),
        _ => "Guests run in QEMU, which emulates their CPUs: slower, but otherwise the same.".into(),
    }
}

/// Free MiB on the file system where `path` is, or would be.
fn free_mib(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
    let output = Command::new("df").args(["--output=avail", "-BM"]).arg(existing).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().nth(1)?.trim().trim_end_matches('M').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LACKING: Tool = Tool { name: "x", package: "x-tools" };

    #[test]
    fn a_missing_tool_is_shown_with_the_command_that_installs_it() {
        let found = &tools(vec![LACKING], Vec::new(), false)[0];
        assert_eq!(found.grade, Grade::Bad);
        assert!(found.text.contains("apt-get install --no-install-recommends x-tools"), "{found}");
        assert_eq!(tools(vec![LACKING], Vec::new(), true)[0].grade, Grade::Note);
        assert_eq!(tools(Vec::new(), vec![LACKING], true)[0].grade, Grade::Good);
        assert_eq!(tools(Vec::new(), vec![LACKING], false)[0].grade, Grade::Bad);
    }

    #[test]
    fn a_broken_kvm_does_not_prevent_guests() {
        let verdict = KvmStatus::Broken("internal error".into());
        let findings = [kvm(&verdict), emulation(&verdict, None)];
        assert!(findings.iter().all(|finding| finding.grade < Grade::Bad));
        assert!(conclusion(&findings, &verdict).contains("QEMU"));
    }

    #[test]
    fn a_kernel_without_a_sandbox_does_not_prevent_guests() {
        let found = |landlock, seccomp| sandbox(Support { landlock, seccomp });
        assert_eq!(found(4, true).grade, Grade::Good);
        for lacking in [found(0, true), found(7, false)] {
            assert_eq!(lacking.grade, Grade::Note, "{lacking}");
            assert!(lacking.text.contains("it needs"), "{lacking}");
        }
    }

    #[test]
    fn free_space_is_that_of_the_nearest_existing_folder() {
        assert!(free_mib(Path::new("/nonexistent/below/root")).is_some());
    }
}
