//! The host programs we need, the Debian packages that contain them, and how to install those.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::message::note;
use super::process::die_with_parent;

/// Environment variable: if it is set, packages are not installed, not even as root.
pub const NO_INSTALL: &str = "REFAULT_NO_INSTALL";

/// A program or a file, and the package that contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Name of a program, or absolute path of a file.
    pub name: &'static str,
    /// Name of the Debian package.
    pub package: &'static str,
}

impl Tool {
    const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, package }
    }

    /// Its path on this machine; `None` if it is missing.
    pub fn locate(&self) -> Option<PathBuf> {
        locate(self.name)
    }
}

/// Host programs for building the guest image.
pub const IMAGE_TOOLS: &[Tool] = &[
    Tool::new("apt-get", "apt"),
    Tool::new("dpkg-deb", "dpkg"),
    Tool::new("mmdebstrap", "mmdebstrap"),
    Tool::new("mkfs.erofs", "erofs-utils"),
    Tool::new("xz", "xz-utils"),
    Tool::new("zstd", "zstd"),
    Tool::new("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
];

/// Further programs for building it without root.
pub const ROOTLESS_TOOLS: &[Tool] = &[Tool::new("newuidmap", "uidmap")];

/// Host programs for running without hardware virtualization.
pub const EMULATION_TOOLS: &[Tool] = &[Tool::new("qemu-system-x86_64", "qemu-system-x86")];

/// The tools among `tools` that this machine lacks.
pub fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().filter(|tool| tool.locate().is_none()).copied().collect()
}

/// The command line that installs their packages.
pub fn install_line(tools: &[Tool]) -> String {
    format!("apt-get install --no-install-recommends {}", packages(tools).join(" "))
}

/// Makes sure that `tools` are present: installs the missing ones if we are root.
///
/// # Errors
/// A tool is missing and cannot be installed; the message contains the command that installs it.
pub fn require(tools: &[Tool], purpose: &str) -> Result<()> {
    let lacking = missing(tools);
    if lacking.is_empty() {
        return Ok(());
    }
    let line = install_line(&lacking);
    if !is_root() || locate("apt-get").is_none() || std::env::var_os(NO_INSTALL).is_some() {
        bail!("{purpose} needs packages that are not installed; as root: {line}");
    }
    note(&format!("{purpose}: installing {}", packages(&lacking).join(", ")));
    install(&packages(&lacking))?;
    match missing(&lacking).first() {
        None => Ok(()),
        Some(tool) => bail!("package {} is installed, yet there is no {}", tool.package, tool.name),
    }
}

/// Whether the effective user is root.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Finds a program in PATH, or in the system folders that a user's PATH often lacks.
pub fn locate(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    if Path::new(name).is_absolute() {
        return Some(PathBuf::from(name)).filter(|path| path.exists());
    }
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn packages(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> = tools.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Retries after an update, since a machine's package lists may be absent or old.
fn install(packages: &[&str]) -> Result<()> {
    if apt_install(packages)? {
        return Ok(());
    }
    apt(&["update", "-qq"])?;
    if apt_install(packages)? {
        return Ok(());
    }
    bail!("apt-get install --no-install-recommends {} failed; see its output above", packages.join(" "))
}

fn apt_install(packages: &[&str]) -> Result<bool> {
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages].concat())
}

/// Runs apt-get; only its errors are shown.
fn apt(arguments: &[&str]) -> Result<bool> {
    let mut command = Command::new("apt-get");
    command.args(["-o", "Dpkg::Use-Pty=0"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(die_with_parent(&mut command, libc::SIGTERM).status()?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: Tool = Tool::new("refault-no-such-program", "no-such-package");

    #[test]
    fn the_install_command_is_one_line_with_every_package_once() {
        let tools = [NOWHERE, Tool::new("b", "b-utils"), Tool::new("b2", "b-utils")];
        assert_eq!(install_line(&tools), "apt-get install --no-install-recommends b-utils no-such-package");
    }

    #[test]
    fn only_what_is_absent_is_missing() {
        assert_eq!(missing(&[Tool::new("sh", "dash"), NOWHERE]), [NOWHERE]);
        assert_eq!(missing(&[Tool::new("/nonexistent/keyring", "k")]).len(), 1);
    }

    #[test]
    fn programs_of_the_system_folders_are_found_without_path() {
        assert!(locate("ldconfig").is_some());
        assert!(locate("../bin/sh").is_none() || Path::new("/usr/sbin/../bin/sh").exists());
    }
}
