//! The guest's kernel as packaged: the choice, the image, the modules.

pub mod config;
pub mod modules;
pub mod outer;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::archive::kernels::{KernelChoice, KernelSeries};
use crate::build::Build;
use crate::cache::CacheKey;
use crate::kernel::modules::ModuleTree;
use crate::kernel::outer::{OUTER_INIT, OUTER_LAYOUT, outer_initramfs};
use crate::recipe::{KERNEL_FLAVOUR, KERNEL_PACKAGES, KERNEL_SUITE, KernelPackages, OUTER_MODULES, RELEASE};
use refault_os::process::Logged;
use refault_os::scratch::Scratch;

/// A kernel in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Release, as `uname -r` prints it.
    pub release: String,
    /// How it is packaged.
    pub packages: &'static KernelPackages,
    folder: PathBuf,
    outer: PathBuf,
}

impl Kernel {
    /// Path of the bzImage.
    pub fn bzimage(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The ELF file inside the bzImage: it starts without decompression.
    pub fn elf(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// Folder with the modules of this release.
    pub fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }

    /// A statically linked busybox.
    pub fn busybox(&self) -> PathBuf {
        self.folder.join("busybox")
    }

    /// The initramfs of the nested machine.
    pub fn outer_initramfs(&self) -> PathBuf {
        self.outer.join("outer.cpio")
    }
}

/// The kernel chosen before; otherwise the newest of the series `wanted`, or the default. `renew` chooses again.
///
/// # Errors
/// It cannot be fetched.
pub fn kernel(build: &Build, wanted: Option<KernelSeries>, renew: bool) -> Result<Kernel> {
    let KernelChoice { release, packages } = choose(build, wanted, renew)?;
    let key = CacheKey::new("kernel").with("release", &release);
    let folder = build.cache.stage("kernel", &key, |work| {
        build.step(&format!("fetching kernel {release} (about 175 MB)"));
        fetch(build, packages, &release, work)
    })?;
    let outer = outer(build, &release, &folder)?;
    Ok(Kernel { release, packages, folder, outer })
}

fn outer(build: &Build, release: &str, kernel: &Path) -> Result<PathBuf> {
    let key = CacheKey::new("outer").with("release", release).with("modules", OUTER_MODULES.join(" "));
    build.cache.stage("outer", &key.with("init", OUTER_INIT).with("layout", OUTER_LAYOUT), |work| {
        let modules = ModuleTree::open(&kernel.join("modules"), &build.logged)?.closure(OUTER_MODULES)?;
        outer_initramfs(&work.join("outer.cpio"), &fs::read(kernel.join("busybox"))?, &modules)
    })
}

/// The archive moves on, but a guest must not change until the user asks for that. So the choice is a stage of its
/// own.
fn choose(build: &Build, wanted: Option<KernelSeries>, renew: bool) -> Result<KernelChoice> {
    let series = wanted.map_or_else(|| "usual".to_string(), |series| series.to_string());
    let key = CacheKey::new("choice")
        .with("kernel and parts", [RELEASE, KERNEL_SUITE, &series, KERNEL_FLAVOUR].join(" "));
    if renew {
        build.cache.forget("choice", &key)?;
    }
    let stage = build.cache.stage("choice", &key, |work| {
        let choice = build.packages()?.kernel(wanted)?;
        build.step(&choice.why(wanted));
        fs::write(work.join("parts"), choice.packages.parts.join(" "))?;
        Ok(fs::write(work.join("kernel"), choice.release)?)
    })?;
    let read = |name| fs::read_to_string(stage.join(name)).context("the chosen kernel cannot be read");
    let (release, parts) = (read("kernel")?, read("parts")?);
    let packages = KERNEL_PACKAGES.iter().find(|packages| packages.parts.join(" ") == parts);
    let packages = packages.ok_or_else(|| anyhow!("kernel {release} is packaged in an unknown way"))?;
    Ok(KernelChoice { release, packages })
}

fn fetch(build: &Build, packages: &KernelPackages, release: &str, work: &Path) -> Result<()> {
    let unpacked = work.join("unpacked");
    let parts: Vec<_> = packages.parts.iter().map(|part| format!("{part}{release}")).collect();
    let packages: Vec<_> = parts.iter().map(String::as_str).chain(["busybox-static"]).collect();
    build.packages()?.has_kernel(release, &packages)?;
    build.packages()?.unpack(&packages, &unpacked)?;
    let tree = unpacked.join("usr/lib/modules").join(release);
    let image = [tree.join("vmlinuz"), unpacked.join(format!("boot/vmlinuz-{release}"))];
    let image = image.iter().find(|path| path.exists());
    let image = image.ok_or_else(|| anyhow!("the packages of kernel {release} hold no vmlinuz"))?;
    fs::rename(image, work.join("vmlinuz"))?;
    fs::rename(&tree, work.join("modules"))?;
    fs::rename(unpacked.join("usr/bin/busybox"), work.join("busybox"))?;
    crate::cache::remove(&unpacked)?;
    Ok(fs::write(work.join("vmlinux"), elf_of(&build.logged, &work.join("vmlinuz"))?)?)
}

/// The ELF file in a bzImage: what its decompressor would unpack.
///
/// # Errors
/// The file is not a bzImage, or its compression is unknown.
pub fn elf_of(logged: &Logged, bzimage: &Path) -> Result<Vec<u8>> {
    let image = fs::read(bzimage).with_context(|| format!("cannot read {}", bzimage.display()))?;
    let payload = payload(&image).ok_or_else(|| anyhow!("{} is not a bzImage", bzimage.display()))?;
    let tool = match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', ..] => "xz",
        [0x1f, 0x8b, ..] => "gzip",
        _ => bail!("{} is compressed in an unknown way", bzimage.display()),
    };
    // gzip insists on its suffix.
    let folder = Scratch::new().context("cannot make a temporary folder")?;
    let packed = folder.path().join("kernel.gz");
    fs::write(&packed, payload)?;
    let elf = logged.bytes(Command::new(tool).arg("-dc").arg(&packed))?;
    match elf.starts_with(b"\x7fELF") {
        true => Ok(elf),
        false => bail!("{} contains something that is not an ELF file", bzimage.display()),
    }
}

/// The compressed kernel in a bzImage, found by the setup header (Documentation/arch/x86/boot.rst). Its last four
/// bytes are the size, which some tools reject as trailing garbage.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let long = |at: usize| Some(u32::from_le_bytes(*image.get(at..)?.first_chunk()?) as usize);
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match usize::from(*image.get(0x1f1)?) {
        0 => 4,
        sectors => sectors,
    };
    let start = (sectors + 1) * 512 + long(0x248)?;
    image.get(start..start.checked_add(long(0x24c)?.checked_sub(4)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_lies_where_the_header_says() {
        let mut image = vec![0u8; 4096];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&8u32.to_le_bytes());
        image[1040..1044].copy_from_slice(b"abcd");
        assert_eq!(payload(&image), Some(b"abcd".as_slice()));
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None);
        assert_eq!(payload(b"MZ"), None);
    }
}
