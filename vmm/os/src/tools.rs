//! The host programs we need, the Debian packages they come in, and how they get here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::process::die_with_parent;
use super::say::note;

/// Set to anything, it keeps us from installing packages as root.
pub const NO_INSTALL: &str = "REFAULT_NO_INSTALL";

/// A program, or a file, and the package that brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// A program's name, or an absolute path of a file.
    pub name: &'static str,
    /// Debian package.
    pub package: &'static str,
}

impl Tool {
    const fn new(name: &'static str, package: &'static str) -> Self {
        Self { name, package }
    }

    /// Where it is on this machine.
    pub fn locate(&self) -> Option<PathBuf> {
        locate(self.name)
    }
}

/// What building the guest image needs of the host.
pub const IMAGE_TOOLS: &[Tool] = &[
    Tool::new("apt-get", "apt"),
    Tool::new("dpkg-deb", "dpkg"),
    Tool::new("mmdebstrap", "mmdebstrap"),
    Tool::new("mkfs.erofs", "erofs-utils"),
    Tool::new("xz", "xz-utils"),
    Tool::new("zstd", "zstd"),
    Tool::new("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
];

/// What building it without being root needs besides.
pub const ROOTLESS_TOOLS: &[Tool] = &[Tool::new("newuidmap", "uidmap")];

/// What running without hardware virtualization needs.
pub const EMULATION_TOOLS: &[Tool] = &[Tool::new("qemu-system-x86_64", "qemu-system-x86")];

/// Those of `tools` that are not here.
pub fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().filter(|tool| tool.locate().is_none()).copied().collect()
}

/// The one line that installs these.
pub fn install_line(tools: &[Tool]) -> String {
    format!("apt-get install --no-install-recommends {}", packages(tools).join(" "))
}

/// Makes sure that `tools` are here: installs what is missing if we are root.
///
/// # Errors
/// Something is missing and cannot be installed: the message is the one line that does it.
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

/// Whether we run as root (by effective user id).
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Finds a program in PATH and in the system folders that a user's PATH often lacks.
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

/// A machine's package lists may be absent or old, so a failure is tried again behind an update.
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

/// Runs apt-get; only its complaints are shown.
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
    fn the_remedy_is_one_line_with_every_package_once() {
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
