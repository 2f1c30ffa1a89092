//! The source package of the guest's verbs software, in the version of its binary packages: the provider is built
//! against its headers, and its tests go into the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::build::Build;
use crate::cache::CacheKey;
use crate::recipe::VERBS_SOURCE;

/// Unpacks the source of `version` into a folder below `work` and returns that folder. It is downloaded once for
/// all stages.
///
/// # Errors
/// It cannot be fetched or unpacked.
pub(crate) fn verbs_source(build: &Build, version: &str, work: &Path) -> Result<PathBuf> {
    let key = CacheKey::new("source").with("package", VERBS_SOURCE).with("version", version);
    let stage = build.cache.stage("source", &key, |stage| {
        build.step(&format!("fetching the source of {VERBS_SOURCE} {version}"));
        build.packages()?.source_tarball(VERBS_SOURCE, version, &stage.join("source.tar.gz"))
    })?;
    let folder = work.join("source");
    fs::create_dir_all(&folder)?;
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(stage.join("source.tar.gz")).arg("-C").arg(&folder);
    build.logged.run(tar.args(["--strip-components=1", "--no-same-owner"]))?;
    Ok(folder)
}
