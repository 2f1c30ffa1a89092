//! A private apt: looks up and downloads packages of the guest's release without changing the host's package lists.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::archive::kernels::{self, KernelChoice, KernelSeries};
use crate::archive::mirror::Mirror;
use crate::cache;
use crate::recipe::{KERNEL_SUITE, RELEASE};
use refault_os::process::Logged;

/// The keys that sign Debian's archive.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Package lists of the guest's release.
#[derive(Debug)]
pub struct Packages {
    folder: PathBuf,
    logged: Logged,
}

impl Packages {
    /// Fetches the lists into `folder`; unchanged ones are not fetched again.
    ///
    /// # Errors
    /// There is no network or no such mirror, or a signature is wrong.
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

    /// The newest kernel of the series `wanted`, or the default.
    ///
    /// # Errors
    /// The archive has none.
    pub fn kernel(&self, wanted: Option<KernelSeries>) -> Result<KernelChoice> {
        let names = self.names("linux-")?;
        KernelChoice::among(&names, wanted).ok_or_else(|| anyhow!(kernels::none(&names, wanted)))
    }

    /// Checks that the archive still has the packages of a kernel that was chosen before.
    ///
    /// # Errors
    /// A package is missing.
    pub fn has_kernel(&self, release: &str, packages: &[&str]) -> Result<()> {
        let names = self.names("linux-")?;
        let gone = packages.iter().filter(|name| name.starts_with("linux-"));
        match gone.into_iter().find(|wanted| !names.lines().any(|name| name == **wanted)) {
            None => Ok(()),
            Some(gone) => bail!(
                "kernel {release} was chosen before, but the archive no longer has {gone}: `refault guest build \
                 --update` chooses again"
            ),
        }
    }

    /// Names of packages that begin with `start`, one per line.
    fn names(&self, start: &str) -> Result<String> {
        self.logged.output(self.apt("apt-cache").args(["pkgnames", start]))
    }

    /// Downloads binary packages and unpacks them into `into`, without installing anything.
    ///
    /// # Errors
    /// A package does not exist, or the disk is full.
    pub fn unpack(&self, names: &[&str], into: &Path) -> Result<()> {
        let debs = into.with_extension("debs");
        std::fs::create_dir_all(&debs)?;
        self.logged.run(self.apt("apt-get").arg("download").args(names).current_dir(&debs))?;
        for deb in cache::files_below(&debs)? {
            self.logged.run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(into))?;
        }
        cache::remove(&debs)
    }

    /// The same for a package of `suite` and all its dependencies, as apt resolves them for an empty system.
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

    /// Downloads the upstream tarball of a source package. The description file, which some mirrors lack, is not
    /// needed: the signed index contains the tarball's digest.
    ///
    /// # Errors
    /// There is no such version, it cannot be fetched, or its digest is wrong.
    pub fn source_tarball(&self, package: &str, version: &str, into: &Path) -> Result<()> {
        let wanted = format!("{package}={version}");
        let mut lookup = self.apt("apt-get");
        let lines =
            self.logged.output(lookup.args(["source", "--download-only", "--print-uris", &wanted]))?;
        let (uri, digest) = tarball_of(&lines)
            .ok_or_else(|| anyhow!(
                "the mirror's source index has no tarball of {wanted}: if the archive has moved on since the guest's packages \
                 were fetched, `refault guest clean` makes room for newer ones"
            ))?;
        let mut fetch = self.apt("/usr/lib/apt/apt-helper");
        self.logged.run(fetch.args(["download-file", uri]).arg(into).arg(digest))
    }

    /// A program of apt that uses our lists and no others.
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

/// URI and digest of the upstream tarball among lines of `'URI' NAME SIZE DIGEST`.
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

    #[test]
    fn the_tarball_is_the_upstream_one() {
        let lines = "NOTICE: something\n\
                     'http://m/x_1-1.dsc' x_1-1.dsc 3 SHA256:aa\n\
                     'http://m/x_1.orig.tar.gz' x_1.orig.tar.gz 4 SHA256:bb\n";
        assert_eq!(tarball_of(lines), Some(("http://m/x_1.orig.tar.gz", "SHA256:bb")));
        assert_eq!(tarball_of("'http://m/x_1.orig.tar.gz' x_1.orig.tar.gz 4 MD5Sum:bb\n"), None);
    }
}
