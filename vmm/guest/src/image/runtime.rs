//! The guest's root file system: packages and kernel modules in an erofs image, and the list of its packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::build::Build;
use crate::build::chroot::Chroot;
use crate::cache::{CacheKey, files_below};
use crate::image::source::verbs_source;
use crate::kernel::Kernel;
use crate::kernel::modules::ModuleTree;
use crate::recipe::{EXCLUDED_PATHS, EXTRA_MODULES, GUEST_MODULES, RELEASE, RUNTIME_PACKAGES, VERBS_TESTS};

/// Package whose tests go into the image.
const TESTED_PACKAGE: &str = "python3-pyverbs";

/// The image is mapped as persistent memory, in 2 MiB pages.
const IMAGE_ALIGN: u64 = 2 << 20;

/// A finished root file system.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    folder: PathBuf,
}

impl Runtime {
    /// The erofs image, uncompressed, so that it can be mapped rather than read.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("root.erofs")
    }

    /// A file with lines of package, version, source package and source version, separated by tabs.
    pub(crate) fn package_list(&self) -> PathBuf {
        self.folder.join("packages.tsv")
    }

    /// Version of the source package that `package` was built from.
    ///
    /// # Errors
    /// The package is not in the image.
    pub(crate) fn source_version(&self, package: &str) -> Result<String> {
        let list =
            fs::read_to_string(self.package_list()).context("the image's package list cannot be read")?;
        source_version(&list, package)
    }
}

/// The root file system for `kernel`.
///
/// # Errors
/// Packages cannot be fetched or installed.
pub(crate) fn runtime(build: &Build, kernel: &Kernel) -> Result<Runtime> {
    let key = CacheKey::new("runtime").with("release", RELEASE).with_all("packages", RUNTIME_PACKAGES);
    let key = key.with_all("excluded", EXCLUDED_PATHS).with("kernel", &kernel.release);
    let key = key
        .with_all("modules", EXTRA_MODULES)
        .with("image", "erofs in units of 2 MiB")
        .with_all("modules", GUEST_MODULES)
        .with("tests", VERBS_TESTS.1);
    let folder = build.cache.stage("runtime", &key, |work| {
        build.step(&format!("installing {} and {} packages for the guest", RELEASE, RUNTIME_PACKAGES.len()));
        let root = work.join("root");
        let chroot = Chroot::install(build, RUNTIME_PACKAGES, &root)?;
        add_modules(build, kernel, &chroot)?;
        let format = "-f=${Package}\\t${Version}\\t${source:Package}\\t${source:Version}\\n";
        let list = build.logged.output(chroot.command("dpkg-query").args(["-W", format]))?;
        add_tests(build, &source_version(&list, TESTED_PACKAGE)?, &chroot, work)?;
        fs::write(work.join("packages.tsv"), list)?;
        build.step("packing the root file system");
        pack(build, &root, &work.join("root.erofs"))?;
        crate::cache::remove(&root)
    })?;
    Ok(Runtime { folder })
}

/// Adds modules for modprobe in the guest, decompressed to save the guest's time.
fn add_modules(build: &Build, kernel: &Kernel, chroot: &Chroot) -> Result<()> {
    let tree = ModuleTree::open(&kernel.modules(), &build.logged)?;
    let folder = chroot.path("usr/lib/modules").join(&kernel.release);
    for module in tree.closure(&[GUEST_MODULES, EXTRA_MODULES].concat())? {
        let path = folder.join(&module.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, &module.image)?;
    }
    build.logged.run(chroot.command_writing("usr/lib/modules", "depmod").arg(&kernel.release))
}

/// Adds the tests of the installed bindings, from the source that these were built from. They are precompiled,
/// because an emulated CPU takes seconds for that, and never compared with their sources, because packing rounds
/// the files' times.
fn add_tests(build: &Build, version: &str, chroot: &Chroot, work: &Path) -> Result<()> {
    let source = verbs_source(build, version, work)?;
    let (from, to) = (source.join(VERBS_TESTS.0), chroot.path(VERBS_TESTS.1));
    fs::create_dir_all(&to)?;
    for file in files_below(&from)?.iter().filter(|file| file.extension().is_some_and(|kind| kind == "py")) {
        fs::copy(file, to.join(file.file_name().unwrap_or_default()))
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let how = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", VERBS_TESTS.1];
    build.logged.run(chroot.command_writing(VERBS_TESTS.1, "python3").args(how))?;
    crate::cache::remove(&source)
}

fn pack(build: &Build, root: &Path, image: &Path) -> Result<()> {
    let mut command =
        Command::new(refault_os::tools::locate("mkfs.erofs").unwrap_or_else(|| "mkfs.erofs".into()));
    build.logged.run(command.arg("--all-root").arg(image).arg(root))?;
    // Pad it to the size of a memory region.
    let file = fs::File::options().write(true).open(image)?;
    Ok(file.set_len(file.metadata()?.len().next_multiple_of(IMAGE_ALIGN))?)
}

fn source_version(list: &str, package: &str) -> Result<String> {
    let found = list.lines().find_map(|line| {
        let mut fields = line.split('\t');
        (fields.next()? == package).then(|| fields.nth(2).map(ToString::to_string))?
    });
    found.ok_or_else(|| anyhow!("package {package} is not in the guest image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_version_is_the_fourth_field() {
        let list = "libibverbs-dev\t1\tx\t1\nlibibverbs1\t56.1-1+b1\trdma-core\t56.1-1\n";
        assert_eq!(source_version(list, "libibverbs1").expect("listed"), "56.1-1");
        assert!(source_version(list, "perftest").is_err());
    }
}
