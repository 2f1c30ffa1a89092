//! The finished guest image: a folder with everything a machine boots from.

pub(crate) mod driver;
mod provider;
mod runtime;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::archive::kernels::KernelSeries;
use crate::build::Build;
use crate::cache::{CacheKey, location, remove};
use crate::image::driver::{boot_archive, driver_archive, toolchain};
use crate::image::provider::provider_sdk;
use crate::image::runtime::{Runtime, runtime};
use crate::kernel::{Kernel, kernel};

/// Variable with the folder of a finished image to be used as it is. Set for programs inside an emulated machine,
/// which have no network and must not build anything.
pub const IMAGE_VARIABLE: &str = "REFAULT_IMAGE";

/// What an image was built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// Version of rdma-core that the provider was built for.
    pub rdma_core: String,
    /// Size of the root file system in bytes.
    pub root_bytes: u64,
    /// Binary packages of the root file system with their versions.
    pub packages: Vec<(String, String)>,
}

/// The folder of a finished image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestImage {
    folder: PathBuf,
}

impl GuestImage {
    /// The image with the newest kernel of the series `wanted`, or with the default one: from the cache if none of
    /// its ingredients has changed, otherwise built. `renew` asks the archive for newer packages.
    ///
    /// # Errors
    /// It cannot be built; an older image stays.
    pub fn ensure(wanted: Option<KernelSeries>, renew: bool) -> Result<Self> {
        if let Some(folder) = std::env::var_os(IMAGE_VARIABLE) {
            return Self::open(Path::new(&folder));
        }
        let build = Build::begin()?;
        let kernel = kernel(&build, wanted, renew)?;
        let runtime = runtime(&build, &kernel)?;
        let toolchain = toolchain(&build, &kernel)?;
        let rdma_core = runtime.source_version("libibverbs1")?;
        let sdk = provider_sdk(&build, &rdma_core, &toolchain)?;
        let boot = boot_archive(&build, &kernel, &toolchain)?;
        let driver = driver_archive(&build, &kernel, &toolchain, &sdk)?;
        let parts = [kernel.bzimage(), kernel.elf(), kernel.outer_initramfs(), runtime.image(), boot, driver];
        assemble(&build, &kernel, &runtime, &rdma_core, &parts)
    }

    /// An existing image.
    ///
    /// # Errors
    /// There is none, or part of it is missing.
    pub fn open(folder: &Path) -> Result<Self> {
        let image = Self { folder: folder.to_path_buf() };
        image.manifest()?;
        Ok(image)
    }

    /// The folder with the image's files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The kernel as an ELF file.
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// The kernel as packaged, a bzImage.
    pub fn bzimage(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// Initramfs with init and kernel modules.
    pub fn boot_archive(&self) -> PathBuf {
        self.folder.join("boot.cpio")
    }

    /// Initramfs with our driver and programs.
    pub fn driver_archive(&self) -> PathBuf {
        self.folder.join("driver.cpio")
    }

    /// The root file system, an erofs image.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root.erofs")
    }

    /// The initramfs of the nested machine.
    pub fn outer_initramfs(&self) -> PathBuf {
        self.folder.join("outer.cpio")
    }

    /// What the image was built from.
    ///
    /// # Errors
    /// The manifest is missing or was written by another version of refault.
    pub fn manifest(&self) -> Result<Manifest> {
        let path = self.folder.join("manifest.json");
        let text = fs::read(&path).with_context(|| {
            format!("{} is not a guest image: `refault guest build` makes one", self.folder.display())
        })?;
        serde_json::from_slice(&text).with_context(|| format!("{} cannot be parsed", path.display()))
    }
}

fn assemble(
    build: &Build,
    kernel: &Kernel,
    runtime: &Runtime,
    rdma_core: &str,
    parts: &[PathBuf],
) -> Result<GuestImage> {
    let key = parts
        .iter()
        .fold(CacheKey::new("image"), |key, part| key.with("part", part.as_os_str().as_encoded_bytes()));
    let folder = build.cache.stage("image", &key, |work| {
        for part in parts {
            // Hard links, so that an image stays complete when the stages it was made from are removed.
            let name = part.file_name().unwrap_or_default();
            fs::hard_link(part, work.join(name))
                .with_context(|| format!("cannot link {}", part.display()))?;
        }
        let packages = fs::read_to_string(runtime.package_list())?;
        let manifest = Manifest {
            kernel: kernel.release.clone(),
            rdma_core: rdma_core.to_string(),
            root_bytes: fs::metadata(runtime.image())?.len(),
            packages: packages.lines().filter_map(name_and_version).collect(),
        };
        fs::write(work.join("manifest.json"), serde_json::to_vec_pretty(&manifest)?)?;
        build.step("the guest image is ready");
        Ok(())
    })?;
    Ok(GuestImage { folder })
}

fn name_and_version(line: &str) -> Option<(String, String)> {
    let mut fields = line.split('\t').map(ToString::to_string);
    Some((fields.next()?, fields.next()?))
}

/// The most recently used image in a cache; it may be older than its sources.
pub fn newest(root: &Path) -> Option<GuestImage> {
    let used = |entry: fs::DirEntry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()));
    let stages = fs::read_dir(root.join("stages")).ok()?.flatten();
    let images = stages.filter(|entry| entry.file_name().to_string_lossy().starts_with("image-"));
    let (_, folder) = images.filter_map(used).max()?;
    GuestImage::open(&folder).ok()
}

/// Removes every stage and list that builds have left, holding the builds' lock. Returns the bytes freed.
///
/// # Errors
/// A build is running, or a file cannot be removed.
pub fn clean() -> Result<u64> {
    let root = location()?;
    let lock = match fs::File::options().append(true).open(root.join("lock")) {
        Ok(lock) => lock,
        Err(_) => return Ok(0),
    };
    if lock.try_lock().is_err() {
        bail!("a build is running in {}: wait for it, or stop it", root.display());
    }
    let bytes = size(&root);
    for part in ["work", "stages", "apt", "trees"] {
        remove(&root.join(part))?;
    }
    Ok(bytes)
}

/// Size on disk of all files below a folder in bytes, with hard links counted each time.
fn size(folder: &Path) -> u64 {
    let files = crate::cache::files_below(folder).unwrap_or_default();
    files.iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_manifest_is_not_an_image() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = GuestImage::open(folder.path()).expect_err("it is empty");
        assert!(error.to_string().contains("refault guest build"), "{error}");
    }

    #[test]
    fn the_package_list_gives_names_and_versions() {
        assert_eq!(name_and_version("a\t1\tb\t2"), Some(("a".into(), "1".into())));
        assert_eq!(name_and_version("a"), None);
    }
}
