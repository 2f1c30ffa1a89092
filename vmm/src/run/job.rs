//! The job of the guest's init: an initramfs archive with the job, the user's modules and the user's files.

use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Result, bail};

use super::options::parse::Add;
use refault_guest::initramfs::Initramfs;
use refault_guest::kernel::modules::load_order;
use refault_hosts::qemu::{Extras, Share};

/// Folders that are links in a Debian system: a folder of that name in the overlay would hide the link's target.
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib64"];
/// Where the overlay's files are in the initramfs.
const OVERLAY: &str = "extra";
/// Maximum number of items of one kind in init.
const ITEMS_MAX: usize = 512;

/// A command for the guest, with its files, modules and environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// The command, its name first.
    pub command: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<(String, OsString)>,
    /// Columns and rows of its terminal, if it gets one.
    pub terminal: Option<(u16, u16)>,
    /// Files for the guest.
    pub add: Vec<Add>,
    /// Paths to collect after the command.
    pub collect: Vec<String>,
    /// Kernel modules to load besides the image's.
    pub modules: Vec<PathBuf>,
    /// The image's modules do not match the kernel: do not load them.
    pub foreign_kernel: bool,
    /// Devices that only QEMU provides.
    pub extras: Extras,
    /// Block device of the root file system.
    pub root: String,
    /// Block device for the collected files.
    pub results: Option<String>,
    /// Set the driver's network interfaces up before the command.
    pub ethernet: bool,
    /// KiB of memory for each CPU's trace of fault handling, if requested.
    pub trace: Option<u64>,
    /// Prefix of init's lines on the control port, which no other program knows.
    pub token: String,
}

/// A [`Job::token`] that no guest can guess.
pub fn token() -> String {
    // Each state gets new keys from the system's random numbers.
    let word = || RandomState::new().hash_one(0u8);
    format!("{:016x}{:016x}", word(), word())
}

impl Job {
    /// Writes the initramfs archive to `out`.
    ///
    /// # Errors
    /// A file that cannot be read, an argument with a NUL in it, or too many of them.
    pub fn write<W: Write>(&self, out: W) -> Result<()> {
        let mut archive = Initramfs::new(out);
        archive.file("refault/job", 0o644, &self.records()?)?;
        let mut list = String::new();
        for module in load_order(&self.modules)? {
            let path = format!("/refault/{}.ko", module.name);
            archive.file(&path, 0o644, &module.image)?;
            list += &format!("{path}\n");
        }
        archive.file("refault/modules", 0o644, list.as_bytes())?;
        for add in &self.add {
            archive.host(&add.host, &overlay_path(&add.guest))?;
        }
        archive.finish()
    }

    /// Records of a letter, text and NUL, as `vmm/guest/src/image/init/setup.c` reads them.
    fn records(&self) -> Result<Vec<u8>> {
        let mut records = JobRecords::default();
        self.command.iter().try_for_each(|argument| records.add(b'a', argument.as_bytes()))?;
        for (name, value) in &self.environment {
            records.add(b'e', &[name.as_bytes(), b"=", value.as_bytes()].concat())?;
        }
        self.collect.iter().try_for_each(|path| records.add(b'c', path.as_bytes()))?;
        records.add(b'k', self.token.as_bytes())?;
        records.add(b'r', self.root.as_bytes())?;
        for (index, share) in self.extras.shares.iter().enumerate() {
            let mode = if share.read_only { "ro" } else { "rw" };
            let text = format!("{} {mode} {}", Share::tag(index), share.guest);
            records.add(b'h', text.as_bytes())?;
        }
        if self.extras.has_devices() {
            records.add(b'l', b"")?;
        }
        if self.extras.net {
            records.add(b'n', b"")?;
        }
        if let Some(results) = &self.results {
            records.add(b'o', results.as_bytes())?;
        }
        if let Some((columns, rows)) = self.terminal {
            records.add(b't', format!("{columns}x{rows}").as_bytes())?;
        }
        if let Some(kib) = self.trace {
            records.add(b's', kib.to_string().as_bytes())?;
        }
        if self.ethernet {
            records.add(b'w', b"")?;
        }
        if self.foreign_kernel {
            records.add(b'f', b"")?;
        }
        if self.command.len().max(self.environment.len()).max(self.collect.len()) > ITEMS_MAX {
            bail!(
                "more than {ITEMS_MAX} arguments, variables or files; put the command into a script and --add it"
            );
        }
        Ok(records.bytes)
    }
}

#[derive(Default)]
struct JobRecords {
    bytes: Vec<u8>,
}

impl JobRecords {
    fn add(&mut self, kind: u8, text: &[u8]) -> Result<()> {
        if text.contains(&0) {
            bail!("an argument holds a NUL byte: {}", String::from_utf8_lossy(text));
        }
        self.bytes.push(kind);
        self.bytes.extend(text);
        self.bytes.push(0);
        Ok(())
    }
}

fn overlay_path(guest: &str) -> String {
    let path = guest.trim_start_matches('/');
    let first = path.split('/').next().unwrap_or_default();
    let merged = if MERGED.contains(&first) { "usr/" } else { "" };
    format!("{OVERLAY}/{merged}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_contain_the_whole_job() {
        let job = Job {
            command: vec!["sh".into(), "-c".into(), "".into()],
            environment: vec![("A".into(), "b=c".into())],
            terminal: Some((80, 25)),
            collect: vec!["/var/log".into()],
            foreign_kernel: true,
            root: "pmem1".into(),
            results: Some("pmem0".into()),
            trace: Some(4096),
            ethernet: true,
            token: "7f".into(),
            ..Job::default()
        };
        let records = job.records().expect("valid");
        assert_eq!(records, b"ash\0a-c\0a\0eA=b=c\0c/var/log\0k7f\0rpmem1\0opmem0\0t80x25\0s4096\0w\0f\0");
    }

    #[test]
    fn tokens_differ() {
        let (one, other) = (token(), token());
        assert!(one != other && one.len() == 32 && other.len() == 32, "{one} {other}");
    }

    #[test]
    fn devices_of_qemu_are_in_the_records() {
        let share = Share { host: "/src".into(), guest: "/my src".into(), read_only: true };
        let extras = Extras { net: true, shares: vec![share], ..Extras::default() };
        let job = Job { extras, ..Job::default() };
        assert_eq!(job.records().expect("valid"), b"k\0r\0hshare0 ro /my src\0l\0n\0");
    }

    #[test]
    fn a_job_that_init_cannot_take_is_refused() {
        let many = Job { command: vec!["x".into(); ITEMS_MAX + 1], ..Job::default() };
        assert!(many.records().is_err());
        let nul = Job { command: vec!["a\0b".into()], ..Job::default() };
        assert!(nul.records().is_err());
    }

    #[test]
    fn added_files_do_not_hide_the_systems_links() {
        assert_eq!(overlay_path("/lib/firmware/x"), "extra/usr/lib/firmware/x");
        assert_eq!(overlay_path("/library/x"), "extra/library/x");
    }

    #[test]
    fn a_missing_file_is_named() {
        let add = Add { host: "/nonexistent/file".into(), guest: "/file".into() };
        let job = Job { add: vec![add], ..Job::default() };
        let error = job.write(std::io::sink()).expect_err("there is none");
        assert!(format!("{error:#}").contains("/nonexistent/file"), "{error:#}");
    }
}
