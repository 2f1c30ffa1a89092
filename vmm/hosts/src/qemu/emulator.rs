//! Finds a QEMU: the distribution's package, unpacked into the cache with the libraries it needs, so that it runs on older
//! releases too; or one that the user names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use refault_guest::build::Build;
use refault_guest::cache::{CacheKey, location, stage_path};
use refault_guest::recipe::{KERNEL_SUITE, RELEASE};

/// Name of its stage in the cache.
const STAGE: &str = "qemu";
/// Debian package of QEMU.
const PACKAGE: &str = "qemu-system-x86";
/// Path of the program in the package.
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
/// The dynamic loader of the package's release.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
/// Folders of libraries and of firmware.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];
/// A folder with this name beside the program, which is the loader here, replaces the root of the file system wherever QEMU
/// looks for its own parts. Without it QEMU takes missing parts from the host, and aborts if their version differs.
const BUNDLE: &str = "usr/lib/x86_64-linux-gnu/qemu-bundle";
/// The first QEMU version with vfio-user.
const OLDEST: (u32, u32) = (10, 1);
/// The QEMU device that we need.
const DEVICE: &str = "vfio-user-pci";

/// A QEMU that can host the devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emulator {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Where it looks for its modules, in place of the built-in path: modules of another build would make it abort.
    modules: Option<PathBuf>,
}

impl Emulator {
    /// The user's own if one is named, otherwise the one in the cache, fetched if necessary.
    ///
    /// # Errors
    /// It is too old, lacks vfio-user, or cannot be fetched.
    pub fn find(own: Option<&Path>) -> Result<Self> {
        match own {
            Some(program) => {
                let emulator = Self { program: program.to_path_buf(), arguments: Vec::new(), modules: None };
                emulator.check().with_context(|| format!("--qemu {}", program.display()))?;
                Ok(emulator)
            }
            None => Self::packaged(),
        }
    }

    /// The one in the cache, if it has been fetched.
    pub fn cached() -> Option<Self> {
        let folder = stage_path(&location().ok()?, STAGE, &key());
        folder.is_dir().then(|| Self::unpacked(&folder))
    }

    /// Removes the one in the cache, so that the next one is the archive's newest.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget() -> Result<()> {
        Build::begin()?.cache.forget(STAGE, &key())
    }

    /// Checks the cache first: a build may have to wait for another, or lack tools.
    fn packaged() -> Result<Self> {
        if let Some(cached) = Self::cached() {
            return Ok(cached);
        }
        let build = Build::begin()?;
        let folder = build.cache.stage(STAGE, &key(), |work| {
            build.step("fetching QEMU (about 40 MB)");
            build.packages()?.unpack_with_all_it_needs(PACKAGE, KERNEL_SUITE, work)?;
            std::fs::create_dir_all(work.join(BUNDLE)).context("cannot make a folder in the cache")?;
            Self::unpacked(work).check()
        })?;
        Ok(Self::unpacked(&folder))
    }

    /// One that was unpacked below `root`, started by its own release's loader.
    fn unpacked(root: &Path) -> Self {
        let mut arguments: Vec<OsString> = vec!["--library-path".into(), root.join(LIBRARIES).into()];
        arguments.push(root.join(PROGRAM).into());
        for folder in FIRMWARE {
            arguments.extend(["-L".into(), root.join(folder).into()]);
        }
        Self { program: root.join(LOADER), arguments, modules: Some(root.join(LIBRARIES).join("qemu")) }
    }

    /// Starts a command line.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        if let Some(modules) = &self.modules {
            command.env("QEMU_MODULE_DIR", modules);
        }
        command
    }

    /// The folders of its program, libraries and firmware.
    pub fn folders(&self) -> Vec<PathBuf> {
        let program = std::fs::canonicalize(&self.program).unwrap_or_else(|_| self.program.clone());
        match (&self.modules, program.parent()) {
            (Some(modules), _) => modules.ancestors().skip(4).take(1).map(Path::to_path_buf).collect(),
            (None, Some(folder)) => {
                [Some(folder), folder.parent()].into_iter().flatten().map(Path::to_path_buf).collect()
            }
            (None, None) => Vec::new(),
        }
    }

    /// Whether it was built with filters for its own system calls. Debian's is.
    pub(super) fn has_sandbox(&self) -> bool {
        self.modules.is_some() || self.ask(&["-sandbox", "on", "-version"]).is_ok()
    }

    /// Its version, as in `11.1.3`.
    ///
    /// # Errors
    /// It cannot be started, or is not QEMU.
    pub fn version(&self) -> Result<String> {
        let said = self.ask(&["--version"])?;
        let word =
            said.strip_prefix("QEMU emulator version ").and_then(|rest| rest.split([' ', '\n']).next());
        word.map(str::to_string)
            .ok_or_else(|| anyhow!("this is not QEMU: it prints {:?}", said.lines().next()))
    }

    fn check(&self) -> Result<()> {
        let version = self.version()?;
        if parsed(&version).is_none_or(|version| version < OLDEST) {
            let (major, minor) = OLDEST;
            bail!("QEMU {version} has no vfio-user: version {major}.{minor} or later is needed");
        }
        let help = self.ask(&["-device", &format!("{DEVICE},help")]);
        help.map(drop).with_context(|| format!("QEMU {version} was built without vfio-user"))
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let said = self.command().args(arguments).output().context("QEMU cannot be started")?;
        if !said.status.success() {
            bail!("QEMU failed ({}): {}", said.status, String::from_utf8_lossy(&said.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    }
}

fn key() -> CacheKey {
    CacheKey::new(STAGE).with("package", [PACKAGE, RELEASE, KERNEL_SUITE].join(" ")).with("bundle", BUNDLE)
}

fn parsed(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(parsed("9.2.0") < Some(OLDEST) && parsed("7.2.22") < Some(OLDEST));
        assert!(parsed("10.1.0") >= Some(OLDEST) && parsed("11.1.3") >= Some(OLDEST));
        assert_eq!(parsed("unknown"), None);
    }

    #[test]
    fn a_program_that_is_not_qemu_is_named() {
        let error = Emulator::find(Some(Path::new("/bin/echo"))).expect_err("no QEMU");
        let text = format!("{error:#}");
        assert!(text.contains("/bin/echo") && text.contains("not QEMU"), "{text}");
    }
}
