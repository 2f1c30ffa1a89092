//! A kernel that the user built: its tree, whether a guest can boot it, and what a guest boots.

mod build;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::image::driver;
use crate::kernel::config::{KernelConfig, Use};
use refault_os::message::note;

/// Variable with the folder of a finished [`TreeKernel`] to be used as it is: for programs inside an emulated
/// machine.
pub const TREE_VARIABLE: &str = "REFAULT_KERNEL_TREE";
/// Path of the kernel in the tree.
const BZIMAGE: &str = "arch/x86/boot/bzImage";
/// Name of the configuration fragment beside the driver's sources.
const FRAGMENT: &str = "kernel.config";

/// A tree in which a kernel was built: its sources, or the folder given with `O=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelTree {
    folder: PathBuf,
    release: String,
    config: KernelConfig,
}

impl KernelTree {
    /// Checks that a tree has been built.
    ///
    /// # Errors
    /// It has not been built, or not completely; the message says what to run.
    pub fn open(folder: &Path) -> Result<Self> {
        let folder = fs::canonicalize(folder)
            .with_context(|| format!("--kernel-tree {}: there is no such folder", folder.display()))?;
        let read = |path: &str, target: &str| {
            fs::read_to_string(folder.join(path)).with_context(|| {
                format!(
                    "no {path} in {0}: is it a kernel tree? `make -C {0} {target}` makes it",
                    folder.display()
                )
            })
        };
        let config = KernelConfig::parse(&read(".config", "x86_64_defconfig")?);
        let release = read("include/config/kernel.release", "-j$(nproc)")?.trim().to_string();
        let tree = Self { release, config, folder };
        ensure!(tree.config.has("X86_64"), "the kernel in {} is not for x86-64", tree.folder.display());
        for path in [BZIMAGE, "modules.order", "Module.symvers"] {
            if !tree.folder.join(path).is_file() {
                bail!("no {path} in {0}: `make -C {0} -j$(nproc)` makes it", tree.folder.display());
            }
        }
        Ok(tree)
    }

    /// Release, as `uname -r` will print it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The configuration that the kernel was built with.
    pub fn config(&self) -> &KernelConfig {
        &self.config
    }

    /// The tree's folder as an absolute path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Path of the kernel.
    pub fn bzimage(&self) -> PathBuf {
        self.folder.join(BZIMAGE)
    }

    /// Checks the configuration, and names each option that guests with these uses need and this kernel lacks.
    ///
    /// # Errors
    /// An option is missing; the message says how to add it.
    pub fn check(&self, uses: &[Use]) -> Result<()> {
        let missing = self.config.missing(uses);
        for wanted in &missing {
            note(&format!("the kernel lacks CONFIG_{}: {}", wanted.name, wanted.purpose));
        }
        if missing.is_empty() {
            return Ok(());
        }
        let fragment = driver::sources()?.join(FRAGMENT);
        let fragment = fs::canonicalize(&fragment).unwrap_or(fragment);
        // In a folder of O= the sources are behind a symbolic link.
        let script = ["scripts", "source/scripts"].into_iter().find(|path| self.folder.join(path).is_dir());
        bail!(
            "the kernel in {0} cannot be this guest's; add what is missing and build it again:\n  cd {0}\n  \
             {1}/kconfig/merge_config.sh -m .config {2}\n  make olddefconfig && make -j$(nproc)",
            self.folder.display(),
            script.unwrap_or("scripts"),
            fragment.display()
        )
    }
}

/// What a guest boots from a tree, in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeKernel {
    folder: PathBuf,
}

impl TreeKernel {
    /// The one for `tree`, rebuilt if the tree or our driver has changed; or the one that [`TREE_VARIABLE`] names.
    ///
    /// # Errors
    /// The tree cannot be used by guests with these uses, or our driver does not build against it.
    pub fn ensure(tree: &Path, uses: &[Use]) -> Result<Self> {
        if let Some(folder) = std::env::var_os(TREE_VARIABLE) {
            return Ok(Self { folder: folder.into() });
        }
        let tree = KernelTree::open(tree)?;
        tree.check(uses)?;
        Ok(Self { folder: build::build(&tree)? })
    }

    /// The folder in the cache.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Path of the kernel: the ELF file inside the bzImage, or the bzImage.
    pub fn kernel(&self) -> PathBuf {
        self.folder.join(build::KERNEL)
    }

    /// An initial RAM file system with its modules and our driver, to be laid over the image's.
    pub fn archive(&self) -> PathBuf {
        self.folder.join(build::ARCHIVE)
    }

    /// Arguments for the kernel's command line.
    ///
    /// # Errors
    /// The folder was not made by refault.
    pub fn arguments(&self) -> Result<String> {
        let path = self.folder.join(build::ARGUMENTS);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(config: &str, files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folder");
            fs::write(path, text).expect("file");
        };
        write(".config", config);
        write("include/config/kernel.release", "7.2.0-mine\n");
        files.iter().for_each(|path| write(path, ""));
        folder
    }

    #[test]
    fn a_tree_that_was_not_built_is_reported_with_the_command_to_run() {
        let nothing = tempfile::tempdir().expect("temporary folder");
        let half = tree("CONFIG_X86_64=y\n", &["modules.order", "Module.symvers"]);
        for (folder, named) in [(&nothing, ".config"), (&half, "bzImage")] {
            let error = KernelTree::open(folder.path()).expect_err("not built").to_string();
            assert!(error.contains(named) && error.contains("make -C"), "{error}");
        }
    }

    #[test]
    fn missing_kernel_options_are_an_error_with_the_remedy() {
        let folder = tree("CONFIG_X86_64=y\n", &[BZIMAGE, "modules.order", "Module.symvers"]);
        let tree = KernelTree::open(folder.path()).expect("built");
        assert_eq!(tree.release(), "7.2.0-mine");
        let error = tree.check(&[Use::Boot]).expect_err("it has nothing").to_string();
        assert!(error.contains("merge_config.sh") && error.contains(FRAGMENT), "{error}");
        tree.check(&[]).expect("nothing is wanted");
    }
}
