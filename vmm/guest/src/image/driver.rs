//! Builds refault's own parts of the guest: init, the kernel module, the libibverbs provider and the programs, in a
//! separate root folder with the guest's compiler, headers and libraries.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::build::Build;
use crate::build::chroot::{Chroot, SCRATCH};
use crate::cache::{CacheKey, files_below};
use crate::image::provider::ProviderSdk;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::kernel::modules::{KernelModule, ModuleTree, load_order};
use crate::recipe::{BUILD_PACKAGES, COMPILER, KBUILD_PACKAGES, KERNEL_SUITE, MODULE_LISTS, RELEASE};

/// Variable that overrides the folder with the guest's sources, `guest-driver` of the source tree.
pub(crate) const SOURCES_VARIABLE: &str = "REFAULT_GUEST_DRIVER";

/// Init's sources, embedded in this program.
const INIT: &[(&str, &str)] = &[
    ("init.h", include_str!("init/init.h")),
    ("main.c", include_str!("init/main.c")),
    ("setup.c", include_str!("init/setup.c")),
    ("host.c", include_str!("init/host.c")),
    ("relay.c", include_str!("init/relay.c")),
    ("collect.c", include_str!("init/collect.c")),
    ("power.c", include_str!("init/power.c")),
    ("trace.c", include_str!("init/trace.c")),
];
const INIT_FLAGS: &[&str] = &["-std=gnu17", "-O2", "-Wall", "-Wextra", "-static", "-s"];
const PROVIDER_FLAGS: &[&str] = &["-std=gnu17", "-O2", "-g", "-Wall", "-shared", "-fPIC", "-include"];

/// The build root with compiler and headers for `kernel`.
///
/// # Errors
/// Packages cannot be fetched or installed.
pub(crate) fn toolchain(build: &Build, kernel: &Kernel) -> Result<Chroot> {
    let headers = header_packages(kernel);
    let headers: Vec<_> = headers.iter().map(String::as_str).collect();
    let tools = if kernel.packages.headers_alone { &[] } else { KBUILD_PACKAGES };
    let packages = [BUILD_PACKAGES, tools, &headers].concat();
    let key = CacheKey::new("toolchain").with("release", RELEASE).with("suite", KERNEL_SUITE);
    let folder = build.cache.stage("toolchain", &key.with_all("packages", &packages), |work| {
        build.step(&format!("installing compiler and headers of {}", kernel.release));
        build.packages()?.has_kernel(&kernel.release, &headers)?;
        let root = work.join("root");
        if kernel.packages.headers_alone {
            return Chroot::install(build, &packages, &root).map(|_| ());
        }
        Chroot::install(build, &[BUILD_PACKAGES, tools].concat(), &root)?;
        build.packages()?.unpack(&headers, &root)
    })?;
    Ok(Chroot::at(folder.join("root")))
}

/// The packages with a kernel's headers: one that depends on the others, or all of them.
fn header_packages(kernel: &Kernel) -> Vec<String> {
    let of = |package: &str| format!("linux-{package}-{}", kernel.release);
    if kernel.packages.headers_alone {
        return vec![of("headers")];
    }
    let version = kernel.release.split('-').next().unwrap_or_default();
    vec![of("headers"), format!("linux-headers-{version}-common"), format!("linux-kbuild-{version}")]
}

/// The initramfs that every guest boots with: init and modules.
///
/// # Errors
/// Init does not compile, or a module cannot be read.
pub(crate) fn boot_archive(build: &Build, kernel: &Kernel, toolchain: &Chroot) -> Result<PathBuf> {
    let mut key = CacheKey::new("boot").with("kernel", &kernel.release).with_all("flags", INIT_FLAGS);
    for (list, modules) in MODULE_LISTS {
        key = key.with(list, modules.join(" "));
    }
    for (name, text) in INIT {
        key = key.with(name, text);
    }
    let folder = build.cache.stage("boot", &key, |work| {
        build.step("building the guest's init and its initramfs");
        let scratch = toolchain.scratch()?;
        for (name, text) in INIT {
            fs::write(scratch.join(name), text)?;
        }
        let sources = INIT.iter().filter(|(name, _)| name.ends_with(".c")).map(|(name, _)| inside(name));
        let mut compiler = toolchain.command(COMPILER);
        build.logged.run(compiler.args(INIT_FLAGS).args(["-o", &inside("init")]).args(sources))?;
        let tree = ModuleTree::open(&kernel.modules(), &build.logged)?;
        let mut archive = Initramfs::create(&work.join("boot.cpio"))?;
        archive.file("init", 0o755, &fs::read(scratch.join("init"))?)?;
        archive.file("bin/busybox", 0o755, &fs::read(kernel.busybox())?)?;
        for folder in ["dev", "proc", "sys"] {
            archive.folder(folder)?;
        }
        for (list, modules) in tree.lists(MODULE_LISTS)? {
            add_modules(&mut archive, list, &modules)?;
        }
        archive.finish()
    })?;
    Ok(folder.join("boot.cpio"))
}

fn add_modules<W: std::io::Write>(
    archive: &mut Initramfs<W>,
    list: &str,
    modules: &[KernelModule],
) -> Result<()> {
    let mut paths = String::new();
    for module in modules {
        let path = format!("/modules/{}.ko", module.name);
        archive.file(&path, 0o644, &module.image)?;
        paths += &format!("{path}\n");
    }
    archive.file(&format!("modules/{list}"), 0o644, paths.as_bytes())
}

/// The initramfs with our driver and programs, whose files are laid over the root file system.
///
/// # Errors
/// A part does not compile; the message quotes the compiler.
pub(crate) fn driver_archive(
    build: &Build,
    kernel: &Kernel,
    toolchain: &Chroot,
    sdk: &ProviderSdk,
) -> Result<PathBuf> {
    let sources = sources()?;
    let header = refault_abi::c_header();
    let mut key = CacheKey::new("driver").with("kernel", &kernel.release).with("header", &header);
    key = key.with("sdk", sdk.folder.to_string_lossy().as_bytes()).with_all("flags", PROVIDER_FLAGS);
    for part in ["linux", "provider", "workload"] {
        key = key.with_tree(part, &sources.join(part))?;
    }
    let folder = build.cache.stage("driver", &key, |work| {
        build.step("building the driver, the provider and the programs of the guest");
        let scratch = toolchain.scratch()?;
        fs::create_dir_all(scratch.join("include"))?;
        fs::write(scratch.join("include/refault_abi.h"), &header)?;
        let bench = PartsBuild { build, toolchain, kernel, scratch: &scratch, sources: &sources };
        let mut archive = Initramfs::create(&work.join("driver.cpio"))?;
        archive.file("extra/usr/include/refault_abi.h", 0o644, header.as_bytes())?;
        bench.module(&mut archive)?;
        bench.provider(sdk, &mut archive)?;
        bench.programs(&mut archive)?;
        archive.finish()
    })?;
    Ok(folder.join("driver.cpio"))
}

/// The folder with the guest's sources: the tree that this program was built from, unless [`SOURCES_VARIABLE`]
/// overrides it.
///
/// # Errors
/// There are no sources there.
pub(crate) fn sources() -> Result<PathBuf> {
    let built_from = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guest-driver");
    let folder = std::env::var_os(SOURCES_VARIABLE).map_or_else(|| PathBuf::from(built_from), PathBuf::from);
    match folder.is_dir() {
        true => Ok(folder),
        false => bail!(
            "the guest's sources are not at {}: set {SOURCES_VARIABLE} to the folder guest-driver",
            folder.display()
        ),
    }
}

/// A path in the scratch folder, as the compiler sees it.
fn inside(path: &str) -> String {
    format!("/{SCRATCH}/{path}")
}

/// The inputs of the three parts' builds.
struct PartsBuild<'a> {
    build: &'a Build,
    toolchain: &'a Chroot,
    kernel: &'a Kernel,
    scratch: &'a Path,
    sources: &'a Path,
}

type Archive = Initramfs<std::io::BufWriter<fs::File>>;

impl PartsBuild<'_> {
    /// The kernel module, which init loads; it is also kept for insmod.
    fn module(&self, archive: &mut Archive) -> Result<()> {
        if !self.take("linux", "Kbuild")? {
            return Ok(());
        }
        // Next to the sources, where Kbuild's include path finds it.
        fs::copy(self.scratch.join("include/refault_abi.h"), self.scratch.join("linux/refault_abi.h"))?;
        let headers = format!("/usr/src/linux-headers-{}", self.kernel.release);
        self.run("make", &["-C", &headers, &format!("M={}", inside("linux")), "-j4", "modules"])
            .context("the kernel module does not build")?;
        let modules = self.built("linux", |name| name.ends_with(".ko"))?;
        for module in &modules {
            self.run("strip", &["--strip-debug", &self.seen(module)])?;
        }
        let mut list = String::new();
        for module in load_order(&modules)? {
            let path = format!("/extra/usr/lib/modules/{}/extra/{}.ko", self.kernel.release, module.name);
            archive.file(&path, 0o644, &module.image)?;
            list += &format!("{path}\n");
        }
        archive.file("modules/driver", 0o644, list.as_bytes())
    }

    /// The libibverbs provider: one shared object from all C files, and the line that makes libibverbs load it.
    fn provider(&self, sdk: &ProviderSdk, archive: &mut Archive) -> Result<()> {
        if !self.take("provider", "")? {
            return Ok(());
        }
        copy_tree(&sdk.folder, &self.scratch.join("sdk"))?;
        let object = format!("librefault-rdmav{}.so", sdk.abi);
        let output = inside(&object);
        let (config, map) =
            (inside("sdk/config.h"), format!("-Wl,--version-script={}", inside("sdk/provider.map")));
        let includes =
            ["include", "sdk/include", "sdk", "provider"].map(|path| format!("-I{}", inside(path)));
        let sources = self.built("provider", |name| name.ends_with(".c"))?;
        let sources: Vec<_> = sources.iter().map(|source| self.seen(source)).collect();
        let mut arguments = [PROVIDER_FLAGS, &[&config, "-o", &output]].concat();
        arguments.extend(includes.iter().chain(&sources).map(String::as_str));
        arguments.extend([map.as_str(), "-Wl,-z,defs", "-libverbs", "-lpthread"]);
        self.run(COMPILER, &arguments).context("the libibverbs provider does not build")?;
        let path = format!("extra/usr/lib/x86_64-linux-gnu/libibverbs/{object}");
        archive.file(&path, 0o644, &fs::read(self.scratch.join(&object))?)?;
        archive.file("extra/etc/libibverbs.d/refault.driver", 0o644, b"driver refault\n")
    }

    /// Programs, built by the Makefile beside them: every file `refault-*` in the folder OUT.
    fn programs(&self, archive: &mut Archive) -> Result<()> {
        if !self.take("workload", "Makefile")? {
            return Ok(());
        }
        let mut make = self.toolchain.command("make");
        make.env("CC", COMPILER).env("CFLAGS", format!("-O2 -g -I{}", inside("include")));
        make.args(["-C", &inside("workload"), "-j4", &format!("OUT={}", inside("programs")), "all"]);
        self.build.logged.run(&mut make).context("the guest's programs do not build")?;
        for program in self.built("programs", |name| name.starts_with("refault-"))? {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            archive.file(&format!("extra/usr/bin/{name}"), 0o755, &fs::read(&program)?)?;
        }
        Ok(())
    }

    /// Copies a part's sources. False if they, or the file the part needs, do not exist.
    fn take(&self, part: &str, needs: &str) -> Result<bool> {
        let from = self.sources.join(part);
        if files_below(&from)?.is_empty() || !from.join(needs).exists() {
            self.build.step(&format!("  nothing to build in {}", from.display()));
            return Ok(false);
        }
        copy_tree(&from, &self.scratch.join(part))?;
        Ok(true)
    }

    /// Files of a scratch folder whose name `wanted` accepts.
    fn built(&self, folder: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
        let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted);
        Ok(files_below(&self.scratch.join(folder))?.into_iter().filter(name).collect())
    }

    /// A file of the scratch folder, as the compiler sees it.
    fn seen(&self, path: &Path) -> String {
        inside(&path.strip_prefix(self.scratch).unwrap_or(path).to_string_lossy())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        self.build.logged.run(self.toolchain.command(program).args(arguments))
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for file in files_below(from)? {
        let target = to.join(file.strip_prefix(from).unwrap_or(&file));
        fs::create_dir_all(target.parent().unwrap_or(to))?;
        fs::copy(&file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}
