//! Makes what a guest boots of a kernel tree: modules, our driver built against the tree, and the kernel itself.
//!
//! The driver is built in a folder that stays, one for each tree, by the tree's own Kbuild with the compiler the tree
//! was built with. Kbuild sees which of the tree's headers have changed, as no key of ours could.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::KernelTree;
use crate::build::Build;
use crate::cache::{Key, files_below, remove};
use crate::chroot::{Chroot, SCRATCH};
use crate::driver::{sources, toolchain};
use crate::initramfs::Initramfs;
use crate::kernel::{elf_of, kernel};
use crate::modules::{Module, ModuleTree, load_order};
use crate::recipe::{EXTRA_MODULES, MODULE_LISTS};

/// Files of the finished folder.
pub(super) const KERNEL: &str = "kernel";
pub(super) const ARCHIVE: &str = "tree.cpio";
pub(super) const ARGUMENTS: &str = "arguments";

/// What depmod looks at besides the modules.
const INDICES: [&str; 3] = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];

/// Modules for a guest.
struct Modules {
    /// What init loads: a list's name, and its modules in their order.
    lists: Vec<(&'static str, Vec<Module>)>,
    /// What is merely there.
    extra: Vec<Module>,
}

impl Modules {
    fn all(&self) -> impl Iterator<Item = &Module> {
        self.lists.iter().flat_map(|(_, modules)| modules).chain(&self.extra)
    }
}

/// Builds it, or finds it in the cache.
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
    let mut key = Key::new("tree").with("release", tree.release()).with("kernel", &bzimage);
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
        // A kernel whose compression we do not know unpacks itself.
        fs::write(work.join(KERNEL), elf.unwrap_or(bzimage))?;
        fs::write(work.join(ARGUMENTS), arguments)?;
        pack(&build, tree, &modules, &work.join(ARCHIVE))
    })
}

/// Our driver, built against the tree.
fn driver(build: &Build, tree: &KernelTree) -> Result<Vec<Module>> {
    let name = Key::new("tree").with("folder", tree.folder().as_os_str().as_encoded_bytes()).hex();
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

/// Makes the sources in `to` those in `from`, and leaves alone what is the same and what was built of it.
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

/// The initial RAM file system: modules as an overlay of the root, and init's lists of them.
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
    // Where depmod looks, if its own system has no folder /usr/lib.
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

/// Where a module lies below the folder of its release.
fn place(module: &Module) -> PathBuf {
    Path::new("kernel").join(&module.path)
}

/// Debug information is for the tree, where gdb finds it; a guest need not carry it.
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
