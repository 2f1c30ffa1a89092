//! What every stage of a build needs: the cache, the log, the mirror and its package lists.

pub(crate) mod chroot;

use std::cell::OnceCell;

use anyhow::Result;

use crate::archive::mirror::Mirror;
use crate::archive::packages::Packages;
use crate::cache::{Cache, location};
use refault_os::message::Progress;
use refault_os::process::Logged;
use refault_os::tools::{IMAGE_TOOLS, ROOTLESS_TOOLS, is_root, require};

/// A build in progress. Mirror and package lists are looked up when the first stage needs them, so a build that
/// finds everything in the cache needs neither network nor apt.
#[derive(Debug)]
pub struct Build {
    /// The cache of finished stages, locked during the build.
    pub cache: Cache,
    /// Runs programs with their output in the build's log.
    pub logged: Logged,
    mirror: OnceCell<Mirror>,
    packages: OnceCell<Packages>,
}

impl Build {
    /// Makes sure that the host's tools are installed, and locks the cache.
    ///
    /// # Errors
    /// A tool is missing, or the cache cannot be used.
    pub fn begin() -> Result<Self> {
        require(IMAGE_TOOLS, "building the guest image")?;
        if !is_root() {
            require(ROOTLESS_TOOLS, "building the guest image without being root")?;
        }
        let root = location()?;
        let progress = Progress::new("guest image");
        let cache = Cache::open(&root, &progress)?;
        let log = root.join("build.log");
        std::fs::write(&log, "")?;
        let logged = Logged::new(&log, &progress);
        Ok(Self { cache, logged, mirror: OnceCell::new(), packages: OnceCell::new() })
    }

    /// Prints one line for the user.
    pub fn step(&self, text: &str) {
        self.logged.progress().step(text);
    }

    /// The Debian archive.
    ///
    /// # Errors
    /// This machine's apt configuration names none.
    pub fn mirror(&self) -> Result<&Mirror> {
        if let Some(mirror) = self.mirror.get() {
            return Ok(mirror);
        }
        let mirror = Mirror::find()?;
        Ok(self.mirror.get_or_init(|| mirror))
    }

    /// Package lists of the guest's release.
    ///
    /// # Errors
    /// They cannot be fetched.
    pub fn packages(&self) -> Result<&Packages> {
        if let Some(packages) = self.packages.get() {
            return Ok(packages);
        }
        let packages = Packages::fetch(&self.cache.root().join("apt"), self.mirror()?, &self.logged)?;
        Ok(self.packages.get_or_init(|| packages))
    }
}
