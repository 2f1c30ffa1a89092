//! Files and TCP ports: Landlock (Documentation/userspace-api/landlock.rst).
//!
//! Landlock does not cover everything about a file: metadata can be read and modes and times changed without a right. The
//! filters for system calls forbid such changes, but not to programs that we start.
#![expect(unsafe_code, reason = "the kernel is asked for its version by a system call without a wrapper")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, RestrictSelfAttr, Ruleset,
    RulesetAttr, RulesetCreatedAttr, Scope,
};

/// The newest ABI that we know. Of an older kernel we ask what it has.
const KNOWN: ABI = ABI::V7;
/// What every process may read: its own state, and the machine's as libraries look it up.
const OWN_STATE: &[&str] =
    &["/proc/self", "/proc/sys", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system"];
/// Devices without a state.
const PLAIN_DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random"];
/// Where a system keeps programs, libraries and their settings.
const SYSTEM: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc"];

/// The files and TCP ports that a process in the sandbox may use. A path that does not exist grants nothing.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    paths: BTreeMap<PathBuf, BitFlags<AccessFs>>,
    /// A TCP port to listen on.
    port: Option<u16>,
    /// All of TCP, for a guest's network.
    network: bool,
}

impl Grants {
    /// A file, or a folder with all below it, may be read.
    pub fn read(&mut self, path: impl Into<PathBuf>) {
        self.add(path.into(), AccessFs::ReadFile | AccessFs::ReadDir);
    }

    /// A file, or a folder with all below it, may be read and executed.
    pub fn execute(&mut self, path: impl Into<PathBuf>) {
        self.add(path.into(), AccessFs::from_read(KNOWN));
    }

    /// The system's programs and libraries may be executed.
    pub fn execute_system(&mut self) {
        SYSTEM.iter().for_each(|path| self.execute(*path));
    }

    /// A file may be read and written, a device used; of a folder all below it, and files can be made there.
    pub fn write(&mut self, path: impl Into<PathBuf>) {
        self.add(path.into(), AccessFs::from_all(KNOWN) & !AccessFs::Execute);
    }

    /// A folder may be written, and is made if it is missing.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn write_folder(&mut self, path: &Path) -> io::Result<()> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        std::fs::create_dir_all(path)?;
        self.write(path);
        Ok(())
    }

    /// What is to be made at `path` may be: this grants its folder, which is made if it is missing, or `path` itself if it is
    /// a folder.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn write_at(&mut self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(folder) if !path.is_dir() => self.write_folder(folder),
            _ => self.write_folder(path),
        }
    }

    /// Empty folders below `folder` may be removed: temporary ones whose contents are granted.
    pub fn remove_folders(&mut self, folder: impl Into<PathBuf>) {
        self.add(folder.into(), AccessFs::RemoveDir.into());
    }

    /// The process may listen on this TCP port.
    pub fn listen(&mut self, port: u16) {
        self.port = Some(port);
    }

    /// The process may use TCP as it likes.
    pub fn network(&mut self) {
        self.network = true;
    }

    /// Paths that may be written, in order.
    pub fn writable(&self) -> impl Iterator<Item = &Path> {
        let writable = self.paths.iter().filter(|(_, access)| access.contains(AccessFs::WriteFile));
        writable.map(|(path, _)| path.as_path())
    }

    /// Whether it listens on a TCP port.
    pub(super) fn listens(&self) -> bool {
        self.port.is_some()
    }

    fn add(&mut self, path: PathBuf, access: BitFlags<AccessFs>) {
        *self.paths.entry(path).or_default() |= access;
    }
}

/// The kernel's ABI version, 0 without Landlock.
pub(super) fn abi() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: with this flag the kernel reads nothing, and returns a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0usize, VERSION) };
    version.try_into().unwrap_or(0)
}

/// Restricts this thread and those that it starts to the grants; from ABI 8 on, all threads.
pub(super) fn restrict(grants: &Grants) -> anyhow::Result<()> {
    let mut rules =
        Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?.scope(Scope::from_all(KNOWN))?;
    if !grants.network {
        rules = rules.handle_access(AccessNet::from_all(KNOWN))?;
    }
    let mut created = rules.create()?.all_threads(true)?;
    let mut all = grants.clone();
    OWN_STATE.iter().for_each(|path| all.read(*path));
    PLAIN_DEVICES.iter().for_each(|path| all.write(*path));
    for (path, access) in all.paths {
        let Ok(file) = PathFd::new(&path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
        created = created.add_rule(PathBeneath::new(file, access))?;
    }
    if let Some(port) = grants.port.filter(|_| !grants.network) {
        created = created.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
    }
    created.restrict_self()?;
    Ok(())
}
