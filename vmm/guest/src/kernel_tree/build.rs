//! Builds what a guest boots from a kernel tree: modules, our driver built against the tree, and the kernel itself.
//!
//! The driver is built in a permanent folder, one for each tree, by the tree's own Kbuild with the tree's own
//! compiler. Kbuild detects which of the tree's headers have changed; a cache key of ours could not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::KernelTree;
use crate::build::Build;
use crate::build::chroot::{Chroot, SCRATCH};
use crate::cache::{CacheKey, files_below, remove};
use crate::image::driver::{sources, toolchain};
use crate::initramfs::Initramfs;
use crate::kernel::modules::{KernelModule, ModuleTree, load_order};
use crate::kernel::{elf_of, kernel};
use crate::recipe::{EXTRA_MODULES, MODULE_LISTS};

/// Names of files in the finished folder.
pub(super) const KERNEL: &str = "kernel";
pub(super) const ARCHIVE: &str = "tree.cpio";
pub(super) const ARGUMENTS: &str = "arguments";

/// What depmod reads besides the modules.
const INDICES: [&str; 3] = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];

/// Modules for a guest.
struct Modules {
    /// The modules that init loads: name of each list, and its modules in order.
    lists: Vec<(&'static str, Vec<KernelModule>)>,
    /// Modules that are only made available.
    extra: Vec<KernelModule>,
}

impl Modules {
    fn all(&self) -> impl Iterator<Item = &KernelModule> {
        self.lists.iter().flat_map(|(_, modules)| modules).chain(&self.extra)
    }
}

/// Builds the folder, or finds it in the cache.
///
/// # Errors
/// The driver does not build against the tree.
pub(super) fn build(tree: &KernelTree) -> Result<PathBuf> {
    let build = Build::begin()?;
    let driver = driver(&build, tree)?;
    let index = ModuleTree::built(tree.folder(), &build.logged)?;
    let mut modules = Modules { lists: index.lists(MODULE_LISTS)?, extra: index.closure(EXTRA_MODULES)? };
    modules.lists.push(("driver", driver));
    let bzimage = fs::read(tree.bzimage())?;
    let arguments = tree.config().iommu_arguments().unwrap_or_default();
    let mut key = CacheKey::new("tree").with("release", tree.release()).with("kernel", &bzimage);
    key = key.with("arguments", arguments);
    for (list, modules) in &modules.lists {
        key = key.with("list", list);
        for module in modules {
            key = key.with(&module.name, &module.image);
        }
    }
    for module in &modules.extra {
        key = key.with(&module.name, &module.image);
    }
    for index in INDICES {
        key = key.with(index, fs::read(tree.folder().join(index)).unwrap_or_default());
    }
    build.cache.stage("tree", &key, |work| {
        build.step(&format!("packing kernel {} and its modules", tree.release()));
        let elf = elf_of(&build.logged, &tree.bzimage());
        // A kernel with unknown compression decompresses itself.
        fs::write(work.join(KERNEL), elf.unwrap_or(bzimage))?;
        fs::write(work.join(ARGUMENTS), arguments)?;
        pack(&build, tree, &modules, &work.join(ARCHIVE))
    })
}

/// Builds our driver against the tree.
fn driver(build: &Build, tree: &KernelTree) -> Result<Vec<KernelModule>> {
    let name = CacheKey::new("tree").with("folder", tree.folder().as_os_str().as_encoded_bytes()).hex();
    let folder = build.cache.root().join("trees").join(name).join("linux");
    renew(&sources()?.join("linux"), &folder)?;
    write_if_new(&folder.join("refault_abi.h"), refault_abi::c_header().as_bytes())?;
    build.step(&format!("building the driver against {}", tree.folder().display()));
    let mut make = Command::new("make");
    make.arg("-C").arg(tree.folder()).arg(format!("M={}", folder.display())).args(["-j4", "modules"]);
    if tree.config().has("CC_IS_CLANG") {
        make.arg("LLVM=1");
    }
    build
        .logged
        .run(&mut make)
        .with_context(|| format!("refault's driver does not build against {}", tree.folder().display()))?;
    let built: Vec<_> = files_below(&folder)?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "ko"))
        .collect();
    load_order(&built)
}

/// Updates the sources in `to` to those in `from`; unchanged files and build products stay as they are.
fn renew(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for file in files_below(from)? {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        write_if_new(&to.join(file.strip_prefix(from).unwrap_or(&file)), &bytes)?;
    }
    Ok(())
}

fn write_if_new(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// The initial RAM file system: modules as an overlay of the root, and init's lists of modules.
fn pack(build: &Build, tree: &KernelTree, modules: &Modules, into: &Path) -> Result<()> {
    let tools = toolchain(build, &kernel(build, None, false)?)?;
    let scratch = tools.scratch()?;
    let below = format!("usr/lib/modules/{}", tree.release());
    let folder = scratch.join(&below);
    for module in modules.all() {
        write_if_new(&folder.join(place(module)), &module.image)?;
    }
    strip(build, &tools, &scratch)?;
    for index in INDICES {
        if tree.folder().join(index).exists() {
            fs::copy(tree.folder().join(index), folder.join(index))?;
        }
    }
    // depmod looks there, if its own system has no folder /usr/lib.
    std::os::unix::fs::symlink("usr/lib", scratch.join("lib"))?;
    build.logged.run(tools.command("depmod").args(["-b", &format!("/{SCRATCH}"), tree.release()]))?;
    let mut archive = Initramfs::create(into)?;
    for (list, modules) in &modules.lists {
        let paths: String =
            modules.iter().map(|module| format!("/extra/{below}/{}\n", place(module).display())).collect();
        archive.file(&format!("modules/{list}"), 0o644, paths.as_bytes())?;
    }
    archive.host(&folder, &format!("extra/{below}"))?;
    archive.finish()?;
    remove(&scratch)
}

/// Path of a module below the folder of its release.
fn place(module: &KernelModule) -> PathBuf {
    Path::new("kernel").join(&module.path)
}

/// Removes debug information: gdb finds it in the tree, and a guest need not hold it in memory.
fn strip(build: &Build, tools: &Chroot, scratch: &Path) -> Result<()> {
    let files = files_below(&scratch.join("usr"))?;
    let seen = files
        .iter()
        .filter_map(|file| Some(Path::new("/").join(SCRATCH).join(file.strip_prefix(scratch).ok()?)));
    build.logged.run(tools.command("strip").arg("--strip-debug").args(seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_have_not_changed_keep_their_time() {
        let (from, to) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let time =
            |name: &str| fs::metadata(to.path().join(name)).and_then(|meta| meta.modified()).expect("file");
        fs::write(from.path().join("same.c"), "1").expect("write");
        fs::write(from.path().join("other.c"), "1").expect("write");
        renew(from.path(), to.path()).expect("copied");
        fs::write(to.path().join("same.o"), "built").expect("write");
        let before = (time("same.c"), time("other.c"));
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(from.path().join("other.c"), "2").expect("write");
        renew(from.path(), to.path()).expect("copied");
        assert_eq!(time("same.c"), before.0);
        assert!(time("other.c") > before.1);
        assert!(to.path().join("same.o").exists());
    }
}
