//! Kernel modules as the distribution packages them: found by name, sorted into load order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::files_below;
use refault_os::process::Logged;

/// One kernel module, decompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelModule {
    /// Name as in `lsmod`, with underscores.
    pub name: String,
    /// Path below the folder of its kernel release, without a compression suffix.
    pub path: PathBuf,
    /// Contents of the ELF file.
    pub image: Vec<u8>,
}

/// The modules of one kernel release.
#[derive(Debug)]
pub struct ModuleTree<'a> {
    files: BTreeMap<String, PathBuf>,
    folder: PathBuf,
    logged: &'a Logged,
}

impl<'a> ModuleTree<'a> {
    /// Indexes the folder of one kernel release.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(folder: &Path, logged: &'a Logged) -> Result<Self> {
        let named = |path: PathBuf| Some((module_name(&path)?, path));
        let files = files_below(folder)?.into_iter().filter_map(named).collect();
        Ok(Self { files, folder: folder.to_path_buf(), logged })
    }

    /// Indexes the modules of a built kernel tree, which `modules.order` lists.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn built(tree: &Path, logged: &'a Logged) -> Result<Self> {
        let list = tree.join("modules.order");
        let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        // Up to Linux 6.3 the list has the installation path and the object's suffix.
        let below = |line: &str| Path::new(line.strip_prefix("kernel/").unwrap_or(line)).with_extension("ko");
        let named = |line| {
            let path = tree.join(below(line));
            Some((module_name(&path)?, path))
        };
        let files = text.lines().filter_map(named).collect();
        Ok(Self { files, folder: tree.to_path_buf(), logged })
    }

    /// The modules `names` and all their dependencies, each after its dependencies. A name without a module is
    /// skipped: distributions sometimes build a module into the kernel.
    ///
    /// # Errors
    /// A module cannot be decompressed.
    pub fn closure(&self, names: &[&str]) -> Result<Vec<KernelModule>> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in names {
            self.add(&name.replace('-', "_"), &mut seen, &mut order)?;
        }
        Ok(order)
    }

    /// The closure of each list, without modules of earlier lists.
    ///
    /// # Errors
    /// As for [`Self::closure`].
    pub fn lists<'n>(&self, lists: &[(&'n str, &[&str])]) -> Result<Vec<(&'n str, Vec<KernelModule>)>> {
        let mut seen = BTreeSet::new();
        let mut closures = Vec::new();
        for (name, modules) in lists {
            let mut order = Vec::new();
            for module in *modules {
                self.add(&module.replace('-', "_"), &mut seen, &mut order)?;
            }
            closures.push((*name, order));
        }
        Ok(closures)
    }

    fn add(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<KernelModule>) -> Result<()> {
        let Some(path) = self.files.get(name).filter(|_| seen.insert(name.to_string())) else {
            return Ok(());
        };
        let image = self.read(path)?;
        for dependency in dependencies(&image) {
            self.add(&dependency, seen, order)?;
        }
        let below = path.strip_prefix(&self.folder).unwrap_or(path);
        let plain = if below.extension().is_some_and(|kind| kind != "ko") {
            below.with_extension("")
        } else {
            below.into()
        };
        order.push(KernelModule { name: name.to_string(), path: plain, image });
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let tool = match path.extension().and_then(|kind| kind.to_str()) {
            Some("ko") => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
            Some("xz") => "xz",
            Some("zst") => "zstd",
            _ => bail!("{} is compressed in an unknown way", path.display()),
        };
        self.logged.bytes(Command::new(tool).arg("-dc").arg(path))
    }
}

/// Sorts loose module files into load order.
///
/// # Errors
/// A file is not a kernel module, or cannot be read.
pub fn load_order(files: &[PathBuf]) -> Result<Vec<KernelModule>> {
    let mut pending = Vec::new();
    for path in files {
        let image = fs::read(path).with_context(|| format!("cannot read module {}", path.display()))?;
        let Some(name) = module_name(path).filter(|_| image.starts_with(b"\x7fELF")) else {
            bail!("{} is not a kernel module: it must be an uncompressed .ko file", path.display());
        };
        pending.push(KernelModule { path: format!("{name}.ko").into(), name, image });
    }
    let mut order: Vec<KernelModule> = Vec::new();
    while !pending.is_empty() {
        let waits = |module: &KernelModule| {
            dependencies(&module.image).iter().any(|name| pending.iter().any(|other| other.name == *name))
        };
        // In a cycle, which no linker produces, the first one is loaded first.
        let next = pending.iter().position(|module| !waits(module)).unwrap_or(0);
        order.push(pending.remove(next));
    }
    Ok(order)
}

/// `kvm_amd` for `.../kvm-amd.ko.xz`.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (stem, _) = file.split_once(".ko").filter(|(_, rest)| rest.is_empty() || rest.starts_with('.'))?;
    Some(stem.replace('-', "_"))
}

/// The `depends=` field of the module's `.modinfo` section, a list of NUL-terminated strings.
fn dependencies(image: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(start) = image.windows(FIELD.len()).position(|window| window == FIELD) else {
        return Vec::new();
    };
    let value = image.get(start + FIELD.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use refault_os::message::Progress;

    fn write(folder: &Path, file: &str, depends: &str) -> PathBuf {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folder");
        fs::write(&path, format!("\x7fELF...\0license=GPL\0depends={depends}\0vermagic=x\0")).expect("file");
        path
    }

    fn names(modules: &[KernelModule]) -> Vec<&str> {
        modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let folder = tempfile::tempdir().expect("temporary folder");
        write(folder.path(), "kernel/b/kvm-amd.ko", "ccp,kvm");
        write(folder.path(), "kernel/a/kvm.ko", "irqbypass");
        write(folder.path(), "kernel/a/ccp.ko", "");
        write(folder.path(), "kernel/irqbypass.ko", "");
        let logged = Logged::new(&folder.path().join("log"), &Progress::new("test"));
        let tree = ModuleTree::open(folder.path(), &logged).expect("readable");
        let modules = tree.closure(&["kvm-amd", "built_in", "kvm"]).expect("all there");
        assert_eq!(names(&modules), ["ccp", "irqbypass", "kvm", "kvm_amd"]);
        assert_eq!(modules[3].path, Path::new("kernel/b/kvm-amd.ko"));
    }

    #[test]
    fn a_built_tree_lists_its_modules_in_either_way() {
        let folder = tempfile::tempdir().expect("temporary folder");
        write(folder.path(), "fs/xfs/xfs.ko", "");
        write(folder.path(), "drivers/net/virtio_net.ko", "");
        fs::write(folder.path().join("modules.order"), "fs/xfs/xfs.o\nkernel/drivers/net/virtio_net.ko\n")
            .expect("list");
        let logged = Logged::new(&folder.path().join("log"), &Progress::new("test"));
        let tree = ModuleTree::built(folder.path(), &logged).expect("readable");
        let modules = tree.closure(&["virtio-net", "xfs", "erofs"]).expect("there");
        assert_eq!(names(&modules), ["virtio_net", "xfs"]);
        assert_eq!(modules[1].path, Path::new("fs/xfs/xfs.ko"));
    }

    #[test]
    fn compressed_modules_are_read() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let plain = write(folder.path(), "kernel/xfs.ko", "");
        let packed = Command::new("xz").arg(&plain).status();
        if !packed.is_ok_and(|status| status.success()) {
            println!("skipped: no xz on this machine");
            return;
        }
        let logged = Logged::new(&folder.path().join("log"), &Progress::new("test"));
        let tree = ModuleTree::open(folder.path(), &logged).expect("readable");
        let modules = tree.closure(&["xfs"]).expect("there");
        assert_eq!(modules[0].path, Path::new("kernel/xfs.ko"));
        assert!(modules[0].image.starts_with(b"\x7fELF"));
    }

    #[test]
    fn loose_modules_are_sorted_too() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let files =
            [write(folder.path(), "mine.ko", "helper,ib_core"), write(folder.path(), "helper.ko", "")];
        assert_eq!(names(&load_order(&files).expect("modules")), ["helper", "mine"]);
    }

    #[test]
    fn a_file_that_is_not_a_module_is_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("notes.txt");
        fs::write(&path, "hello").expect("file");
        let error = load_order(&[path]).expect_err("text");
        assert!(error.to_string().contains("notes.txt"), "{error}");
    }
}
