//! The headers that a libibverbs provider is built against: the private headers of rdma-core's source package, in
//! the version of the guest's libibverbs. The package itself is not built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::build::Build;
use crate::build::chroot::{Chroot, SCRATCH};
use crate::cache::{CacheKey, files_below};
use crate::image::source::verbs_source;
use crate::recipe::VERBS_SOURCE;

/// Folders of the source with headers, and the folder in which an `#include` looks for them.
const HEADERS: &[(&str, &str)] = &[
    ("libibverbs", "infiniband"),
    ("ccan", "ccan"),
    ("util", "util"),
    ("kernel-headers/rdma", "rdma"),
    ("kernel-headers/rdma/ib_user_ioctl_verbs.h", "infiniband/ib_user_ioctl_verbs.h"),
];
/// The part of rdma-core's configuration that its headers need.
const CONFIG: &str = "#define HAVE_STATEMENT_EXPR 1\n#define HAVE_BUILTIN_TYPES_COMPATIBLE_P 1\n\
    #define HAVE_TYPEOF 1\n#define HAVE_ISBLANK 1\n#define HAVE_BUILTIN_CLZ 1\n#define HAVE_BUILTIN_CLZL 1\n\
    #define HAVE_FUNC_ATTRIBUTE_ALWAYS_INLINE 1\n#define HAVE_FUNC_ATTRIBUTE_IFUNC 1\n\
    #define HAVE_FUNC_ATTRIBUTE_SYMVER 1\n#define HAVE_WORKING_IF_H 1\n#define HAVE_FULL_SYMBOL_VERSIONS 1\n\
    #define STREAM_CLOEXEC \"e\"\n#define RDMA_CDEV_DIR \"/dev/infiniband\"\n#define SIZEOF_LONG 8\n\
    #define VERBS_IOCTL_ONLY 0\n#define VERBS_WRITE_ONLY 0\n";

/// The headers, ready for the compiler.
#[derive(Clone, Debug)]
pub(crate) struct ProviderSdk {
    /// The folder with `include/`, `config.h` and `provider.map`.
    pub(crate) folder: PathBuf,
    /// The private ABI of libibverbs, part of a provider's file name.
    pub(crate) abi: u32,
}

/// The headers of `version`; `toolchain` has the interpreter for the script that generates some of them.
///
/// # Errors
/// The source cannot be fetched, or has an unknown layout.
pub(crate) fn provider_sdk(build: &Build, version: &str, toolchain: &Chroot) -> Result<ProviderSdk> {
    let key = CacheKey::new("provider-sdk").with("version", version).with("config", CONFIG);
    let folder = build.cache.stage("provider-sdk", &key, |work| {
        let source = verbs_source(build, version, work)?;
        prepare(build, &source, toolchain, work)?;
        crate::cache::remove(&source)
    })?;
    let abi = fs::read_to_string(folder.join("abi"))?.trim().parse().context("no private ABI number")?;
    Ok(ProviderSdk { folder, abi })
}

fn prepare(build: &Build, source: &Path, toolchain: &Chroot, work: &Path) -> Result<()> {
    let include = work.join("include");
    for (from, to) in HEADERS {
        let (from, to) = (source.join(from), include.join(to));
        let files = if from.is_dir() { files_below(&from)? } else { vec![from.clone()] };
        for file in files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "h")) {
            let name = file.strip_prefix(&from).unwrap_or(file);
            let target = if name.as_os_str().is_empty() { to.clone() } else { to.join(name) };
            fs::create_dir_all(target.parent().unwrap_or(&include))?;
            fs::copy(file, &target).with_context(|| format!("cannot copy {}", file.display()))?;
        }
    }
    let abi = private_abi(&fs::read_to_string(source.join("CMakeLists.txt"))?)
        .ok_or_else(|| anyhow!("{VERBS_SOURCE} does not declare its private ABI"))?;
    fs::write(work.join("abi"), format!("{abi}\n"))?;
    fs::write(work.join("config.h"), format!("{CONFIG}#define IBVERBS_PABI_VERSION {abi}\n"))?;
    fs::copy(source.join("buildlib/provider.map"), work.join("provider.map"))?;
    make_abi_structs(build, source, toolchain, &include)
}

/// Runs the package's script that turns kernel structures into macros.
fn make_abi_structs(build: &Build, source: &Path, toolchain: &Chroot, include: &Path) -> Result<()> {
    let scratch = toolchain.scratch()?;
    fs::copy(source.join("buildlib/make_abi_structs.py"), scratch.join("make.py"))?;
    fs::copy(source.join("kernel-headers/rdma/ib_user_verbs.h"), scratch.join("in.h"))?;
    let inside = |file: &str| format!("/{SCRATCH}/{file}");
    build.logged.run(toolchain.command("python3").args(["make.py", "in.h", "out.h"].map(inside)))?;
    let target = include.join("kernel-abi");
    fs::create_dir_all(&target)?;
    fs::copy(scratch.join("out.h"), target.join("ib_user_verbs.h"))?;
    Ok(())
}

/// The number in the line `set(IBVERBS_PABI_VERSION "34")`.
fn private_abi(cmake: &str) -> Option<u32> {
    let line = cmake.lines().find_map(|line| line.trim().strip_prefix("set(IBVERBS_PABI_VERSION "))?;
    line.trim_end_matches(')').trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_abi_is_read_from_the_build_description() {
        assert_eq!(private_abi("# x\nset(IBVERBS_PABI_VERSION \"34\")\n"), Some(34));
        assert_eq!(private_abi("set(OTHER \"34\")\n"), None);
    }
}
