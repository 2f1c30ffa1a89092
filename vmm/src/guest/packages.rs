//! A private apt: the guest's release, looked up and downloaded without touching the host's package lists.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use super::cache;
use super::mirror::Mirror;
use super::recipe::{KERNEL_FLAVOUR, KERNEL_SUITE, KernelSeries, RELEASE};
use crate::host::process::Logged;

/// The keys that sign Debian's archive.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Package lists of the guest's release.
#[derive(Debug)]
pub struct Packages {
    folder: PathBuf,
    logged: Logged,
}

impl Packages {
    /// Fetches the lists into `folder`; what did not change is not fetched again.
    ///
    /// # Errors
    /// No network, no such mirror, a bad signature.
    pub fn fetch(folder: &Path, mirror: &Mirror, logged: &Logged) -> Result<Self> {
        let packages = Self { folder: folder.to_path_buf(), logged: logged.clone() };
        for part in ["lists/partial", "archives/partial"] {
            std::fs::create_dir_all(folder.join(part))?;
        }
        let updates = format!("{RELEASE}-updates");
        let suites = [RELEASE, &updates, KERNEL_SUITE];
        std::fs::write(folder.join("status"), "")?;
        std::fs::write(
            folder.join("sources.list"),
            mirror.source_lines(&["deb", "deb-src"], &suites, KEYRING),
        )?;
        logged.progress().step(&format!("fetching package lists of {RELEASE} and {KERNEL_SUITE}"));
        let mut update = packages.apt("apt-get");
        logged
            .run(update.args(["-o", "APT::Update::Error-Mode=any", "update"]))
            .context("no package lists for the guest image: is there a network, and a Debian mirror?")?;
        Ok(packages)
    }

    /// The newest kernel of the series that has all its parts, as in `7.2.12+deb13-amd64`.
    ///
    /// # Errors
    /// The archive has none.
    pub fn newest_kernel(&self, series: &KernelSeries) -> Result<String> {
        let names = self.logged.output(self.apt("apt-cache").args(["pkgnames", "linux-"]))?;
        newest_whole(&names, series).ok_or_else(|| {
            anyhow!(
                "{RELEASE} and {KERNEL_SUITE} on this mirror have no kernel {}.*; try another mirror",
                series.version
            )
        })
    }

    /// Downloads binary packages and unpacks them into `into`, without installing anything.
    ///
    /// # Errors
    /// A package that is not there, or a full disk.
    pub fn unpack(&self, names: &[&str], into: &Path) -> Result<()> {
        let debs = into.with_extension("debs");
        std::fs::create_dir_all(&debs)?;
        self.logged.run(self.apt("apt-get").arg("download").args(names).current_dir(&debs))?;
        for deb in cache::files_below(&debs)? {
            self.logged.run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(into))?;
        }
        cache::remove(&debs)
    }

    /// The same for a package of `suite` and everything that it needs to run, as apt chooses it for an empty system.
    ///
    /// # Errors
    /// As for [`Self::unpack`].
    pub fn unpack_with_all_it_needs(&self, name: &str, suite: &str, into: &Path) -> Result<()> {
        let archives = self.folder.join("archives");
        let mut command = self.apt("apt-get");
        command.args(["--no-install-recommends", "--yes", "--download-only", "--target-release", suite]);
        self.logged.run(command.args(["install", name]))?;
        for deb in
            cache::files_below(&archives)?.iter().filter(|path| path.extension() == Some("deb".as_ref()))
        {
            self.logged.run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(into))?;
        }
        cache::remove(&archives)?;
        Ok(std::fs::create_dir_all(archives.join("partial"))?)
    }

    /// Downloads the upstream tarball of a source package. Only the tarball: the signed index vouches for it by
    /// its digest, so the description file, which some mirrors lack, is not needed.
    ///
    /// # Errors
    /// No such version, or it cannot be fetched, or its digest is wrong.
    pub fn source_tarball(&self, package: &str, version: &str, into: &Path) -> Result<()> {
        let wanted = format!("{package}={version}");
        let mut lookup = self.apt("apt-get");
        let lines =
            self.logged.output(lookup.args(["source", "--download-only", "--print-uris", &wanted]))?;
        let (uri, digest) = tarball_of(&lines)
            .ok_or_else(|| anyhow!("the mirror's source index has no tarball of {wanted}"))?;
        let mut fetch = self.apt("/usr/lib/apt/apt-helper");
        self.logged.run(fetch.args(["download-file", uri]).arg(into).arg(digest))
    }

    /// A program of apt's that sees our lists and no others.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let paths = [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::State::lists", "lists"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "."),
        ];
        for (name, path) in paths {
            command.arg("-o").arg(format!("{name}={}", self.folder.join(path).display()));
        }
        let settings = [
            "Dir::Etc::sourceparts=-",
            "Dir::Etc::preferences=-",
            "Dir::Etc::preferencesparts=-",
            "APT::Architecture=amd64",
            "APT::Architectures=amd64",
            "Acquire::Languages=none",
            "Acquire::Retries=3",
            "APT::Sandbox::User=",
        ];
        for setting in settings {
            command.args(["-o", setting]);
        }
        command.env("LC_ALL", "C");
        command
    }
}

/// The newest release of the series for which kernel, modules and headers are all among the package `names`.
fn newest_whole(names: &str, series: &KernelSeries) -> Option<String> {
    let has = |part: &str, release: &str| names.lines().any(|name| name.strip_prefix(part) == Some(release));
    names
        .lines()
        .filter_map(|name| name.strip_prefix("linux-headers-"))
        .filter_map(|release| Some((patch_level(release, series)?, release)))
        .filter(|(_, release)| series.parts.iter().all(|part| has(part, release)))
        .max()
        .map(|(_, release)| release.to_string())
}

/// `12` for `7.2.12+deb13-amd64`; none for other series and flavours.
fn patch_level(release: &str, series: &KernelSeries) -> Option<u32> {
    let (version, flavour) = release.split_once('-')?;
    let patch = version.strip_prefix(series.version)?.strip_prefix('.')?.split('+').next()?;
    (flavour == KERNEL_FLAVOUR).then_some(patch)?.parse().ok()
}

/// URI and digest of the upstream tarball among the lines `'URI' NAME SIZE DIGEST`.
fn tarball_of(lines: &str) -> Option<(&str, &str)> {
    lines.lines().find_map(|line| {
        let (uri, rest) = line.strip_prefix('\'')?.split_once("' ")?;
        let mut fields = rest.split(' ');
        let (name, _size, digest) = (fields.next()?, fields.next()?, fields.next()?);
        (name.contains(".orig.tar.") && digest.starts_with("SHA256:")).then_some((uri, digest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::recipe::KERNELS;

    #[test]
    fn the_newest_kernel_with_all_its_parts_is_taken() {
        let names = ["7.2.9+deb13-amd64", "7.2.12+deb13-amd64", "7.3.1+deb13-amd64", "7.2.14+deb13-rt-amd64"];
        let mut list = String::new();
        for release in names {
            list += &format!("linux-binary-{release}\nlinux-modules-{release}\nlinux-headers-{release}\n");
        }
        list += "linux-binary-7.2.13+deb13-amd64\nlinux-modules-7.2.13+deb13-amd64\n";
        let [usual, other] = KERNELS else { panic!("there are two") };
        assert_eq!(newest_whole(&list, usual).as_deref(), Some("7.2.12+deb13-amd64"));
        assert_eq!(newest_whole(&list, other), None);
        list += "linux-image-6.12.9+deb13-amd64\nlinux-headers-6.12.9+deb13-amd64\n\
                 linux-image-6.12.117+deb13-amd64\nlinux-headers-6.12.117+deb13-amd64\n\
                 linux-image-6.12.118+deb13-amd64\n";
        assert_eq!(newest_whole(&list, other).as_deref(), Some("6.12.117+deb13-amd64"));
    }

    #[test]
    fn the_tarball_is_the_upstream_one() {
        let lines = "NOTICE: something\n\
                     'http://m/x_1-1.dsc' x_1-1.dsc 3 SHA256:aa\n\
                     'http://m/x_1.orig.tar.gz' x_1.orig.tar.gz 4 SHA256:bb\n";
        assert_eq!(tarball_of(lines), Some(("http://m/x_1.orig.tar.gz", "SHA256:bb")));
        assert_eq!(tarball_of("'http://m/x_1.orig.tar.gz' x_1.orig.tar.gz 4 MD5Sum:bb\n"), None);
    }
}
