//! Folders that hold a whole Debian system, and programs that run inside them. Each program has a mount namespace
//! of its own, so nothing stays mounted. None is root on this machine: users other than root map themselves to root in a user
//! namespace, and own every file in such a folder; root becomes the user `nobody`, who owns only the files to be written.
//!
//! Where root builds, packages are installed by root all the same, because mmdebstrap refuses a user namespace to root. Their
//! scripts are signed by Debian; what runs later may be the user's own driver.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::archive::packages::KEYRING;
use crate::build::Build;
use crate::recipe::{EXCLUDED_PATHS, KERNEL_SUITE, RELEASE};
use refault_os::tools::is_root;

/// Packages that come from the kernel's suite, in a root whose kernel headers do.
const KERNEL_PACKAGES: &str = "linux-headers-* linux-kbuild-* linux-compiler-* pahole";

/// The folder for work in progress, as seen from inside.
pub(crate) const SCRATCH: &str = "refault-build";

/// Mounts the host's devices and processes, which compilers use, while one program runs. The first argument is a folder inside,
/// for root's version.
const ENTER: &str =
    "mount --rbind /dev \"$0/dev\" && mount --rbind /proc \"$0/proc\" && shift && exec chroot \"$0\" \"$@\"";
/// The same as the user `nobody`, without privileges or ways to get them, who gets the folder.
const ENTER_AS_NOBODY: &str = "mount --rbind /dev \"$0/dev\" && mount --rbind /proc \"$0/proc\" &&
    { [ ! -e \"$0/$1\" ] || chown -Rh 65534:65534 \"$0/$1\"; } && shift &&
    exec chroot \"$0\" setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --bounding-set=-all -- \"$@\"";

/// A Debian system in a folder.
#[derive(Clone, Debug)]
pub(crate) struct Chroot {
    folder: PathBuf,
}

impl Chroot {
    /// An existing system in `folder`.
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Installs the release's essential packages and `packages` into `folder`.
    ///
    /// # Errors
    /// mmdebstrap fails; the message quotes the end of its log.
    pub(crate) fn install(build: &Build, packages: &[&str], folder: &Path) -> Result<Self> {
        let sources = folder.with_extension("list");
        let updates = format!("{RELEASE}-updates");
        fs::write(
            &sources,
            build.mirror()?.source_lines(&["deb"], &[RELEASE, &updates, KERNEL_SUITE], KEYRING),
        )?;
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=essential", "--architectures=amd64", "--dpkgopt=force-unsafe-io"]);
        command.arg("--aptopt=Acquire::Languages \"none\"").arg("--aptopt=Acquire::Retries \"3\"");
        for path in EXCLUDED_PATHS {
            command.arg(format!("--dpkgopt=path-exclude={path}"));
        }
        let pin =
            format!("Package: {KERNEL_PACKAGES}\\nPin: release n={KERNEL_SUITE}\\nPin-Priority: 500\\n");
        command.arg(format!("--setup-hook=printf '{pin}' > \"$1/etc/apt/preferences.d/kernel\""));
        command.arg(format!("--include={}", packages.join(",")));
        let tar = folder.with_extension("tar");
        match is_root() {
            true => command.args(["--mode=root", "--format=directory", RELEASE]).arg(folder),
            false => command.args(["--mode=unshare", "--format=tar", RELEASE]).arg(&tar),
        };
        build.logged.run(command.arg(&sources)).context("the guest's packages cannot be installed")?;
        if !is_root() {
            extract(build, &tar, folder)?;
            fs::remove_file(&tar)?;
        }
        fs::remove_file(&sources)?;
        Ok(Self::at(folder.to_path_buf()))
    }

    /// The host's path of a path inside the system.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.folder.join(inside.trim_start_matches('/'))
    }

    /// Empties and returns the folder [`SCRATCH`] inside, for sources and build products. It is not part of the
    /// system. Builds run one after the other under the cache's lock, so each may start by emptying it.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub(crate) fn scratch(&self) -> Result<PathBuf> {
        let folder = self.path(SCRATCH);
        crate::cache::remove(&folder)?;
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// A program of the system, with the system's root folder as its root and a minimal environment. It writes in [`SCRATCH`].
    pub(crate) fn command(&self, program: &str) -> Command {
        self.command_writing(SCRATCH, program)
    }

    /// As [`Self::command`], for a program that writes in another folder of the system.
    pub(crate) fn command_writing(&self, folder: &str, program: &str) -> Command {
        let mut command = Command::new("unshare");
        let enter = match is_root() {
            true => ENTER_AS_NOBODY,
            false => {
                command.args(["--user", "--map-root-user"]);
                ENTER
            }
        };
        command.args(["--mount", "sh", "-c", enter]).arg(&self.folder);
        command.arg(folder).arg(program).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C").env("HOME", "/");
        command
    }
}

/// Unpacks files that mmdebstrap made under other user ids, so that we own them. Device nodes are left out: only
/// root can create those.
fn extract(build: &Build, tar: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = Command::new("tar");
    command.arg("-xpf").arg(tar).arg("-C").arg(folder).args(["--no-same-owner", "--exclude=./dev/*"]);
    build.logged.run(&mut command)
}
