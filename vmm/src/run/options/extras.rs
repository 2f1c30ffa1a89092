//! Options of `refault run` for debugging a guest's kernel, gdb and cores, and those that only QEMU can follow: a network,
//! shared folders.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use refault_guest::kernel::config::Use;
use refault_hosts::choice::Chosen;
use refault_hosts::nested::inside;
use refault_hosts::qemu::{Extras, SHARES_MAX, Share};
use refault_machine::debug::place::{check_place, listen};
use refault_machine::debug::{Debug, Gdb};
use refault_os::message::note;

/// The port gdb's own documentation uses.
const GDB_PORT: &str = "1234";

/// A network for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Net {
    /// Behind QEMU's address translation: the guest reaches what this machine reaches, and cannot be reached itself.
    User,
}

/// The options for debugging and for QEMU's devices.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ExtraArgs {
    /// Let gdb attach to the guest's kernel at this port of the loopback interface
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = GDB_PORT)]
    gdb: Option<u16>,
    /// Let the guest wait for gdb before its first instruction
    #[arg(long)]
    gdb_wait: bool,
    /// Give the guest a network (QEMU only)
    #[arg(long, value_enum)]
    net: Option<Net>,
    /// Folder of the host to share with the guest; read-only with :ro (QEMU only)
    #[arg(long, value_name = "HOST:GUEST[:ro]")]
    share: Vec<ShareSpec>,
    /// Root file system: `host` or a folder, read-only; the guest's writes stay in memory (QEMU only)
    #[arg(long, value_name = "host|DIR", conflicts_with_all = ["rootfs", "initrd"])]
    root: Option<PathBuf>,
    /// Write a core of the guest's memory here when it is reset, as it is by a panic; SIGUSR2 asks for one
    #[arg(long, value_name = "FILE")]
    dump: Option<PathBuf>,
}

impl ExtraArgs {
    /// Checks that the guest's host supports the options.
    ///
    /// # Errors
    /// An option needs QEMU and another host was chosen, gdb's port cannot be reached, or the core cannot be written.
    pub(crate) fn check(&self, chosen: Chosen) -> Result<()> {
        let given = [
            ("--net", self.net.is_some()),
            ("--share", !self.share.is_empty()),
            ("--root", self.root.is_some()),
        ];
        ensure!(
            chosen != Chosen::Nested || self.gdb_port().is_none(),
            "--gdb cannot reach a guest of --host nested: its port would be in the emulated machine, which has no \
             network; leave out --host nested"
        );
        if let Some(file) = &self.dump {
            check_place(file)?;
        }
        if let Some(port) = self.gdb_port() {
            listen(port)?;
        }
        match given.iter().find(|(_, given)| *given) {
            Some((option, _)) if chosen != Chosen::Qemu => {
                bail!("{option} needs QEMU, and refault's own VMM was chosen: add --host qemu")
            }
            _ => Ok(()),
        }
    }

    /// Features of the guest's kernel that the options need.
    pub(crate) fn uses(&self) -> Vec<Use> {
        let share = !self.share.is_empty() || self.root.is_some();
        let uses = [(Use::Share, share), (Use::Net, self.net.is_some())];
        uses.into_iter().filter(|(_, given)| *given).map(|(used, _)| used).collect()
    }

    /// The options as the machine takes them. The share for --root comes first.
    ///
    /// # Errors
    /// A folder is missing, or there are too many.
    pub(crate) fn extras(&self) -> Result<Extras> {
        let mut shares = Vec::new();
        if let Some(root) = &self.root {
            let host = if root == Path::new("host") { Path::new("/") } else { root };
            shares.push(Share { host: folder("--root", host)?, guest: "/".into(), read_only: true });
        }
        for share in &self.share {
            let host = folder("--share", &share.host)?;
            shares.push(Share { host, guest: share.guest.clone(), read_only: share.read_only });
        }
        ensure!(shares.len() <= SHARES_MAX, "more than {SHARES_MAX} shares: share a folder above them");
        let gdb = self.gdb_port().map(|port| Gdb { port, wait: self.gdb_wait });
        // Signals do not reach a process in an emulated machine.
        let debug = Debug { gdb, dump: self.dump.clone(), signals: !inside() };
        Ok(Extras { debug, net: self.net.is_some(), shares })
    }

    /// Prints how to attach gdb, and which timeouts go on while it stops the guest. `vmlinux` has the kernel's symbols.
    pub(crate) fn announce(&self, vmlinux: Option<&Path>, fault_seconds: Option<u64>, limit: bool) {
        let Some(port) = self.gdb_port() else { return };
        let vmlinux = vmlinux.unwrap_or(Path::new("vmlinux")).display();
        let waits = if self.gdb_wait { "; the guest waits for it" } else { "" };
        note(&format!("gdb {vmlinux} -ex 'target remote :{port}'{waits}"));
        let fault = fault_seconds
            .map(|seconds| format!("a fault that gdb delays fails after {seconds} s (--fault-timeout)"));
        let run = limit.then(|| "the run ends by --timeout".to_owned());
        let clocks: Vec<_> = fault.into_iter().chain(run).collect();
        if !clocks.is_empty() {
            note(&format!("time keeps running while gdb stops the guest: {}", clocks.join(", and ")));
        }
    }

    /// The file for cores.
    pub(crate) fn dump(&self) -> Option<&PathBuf> {
        self.dump.as_ref()
    }

    fn gdb_port(&self) -> Option<u16> {
        self.gdb.or_else(|| self.gdb_wait.then(|| GDB_PORT.parse().ok())?)
    }
}

fn folder(option: &str, path: &Path) -> Result<PathBuf> {
    let folder = std::fs::canonicalize(path).with_context(|| format!("{option} {}", path.display()))?;
    ensure!(folder.is_dir(), "{option} {}: not a folder; --add takes files", path.display());
    Ok(folder)
}

/// A folder of the host and its path in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ShareSpec {
    host: PathBuf,
    guest: String,
    read_only: bool,
}

impl FromStr for ShareSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (paths, read_only) = text.strip_suffix(":ro").map_or((text, false), |paths| (paths, true));
        // The last one, because a host's path may contain a colon too.
        let (host, guest) =
            paths
                .rfind(":/")
                .and_then(|at| Some((paths.get(..at)?, paths.get(at + 1..)?)))
                .ok_or("expected HOST:GUEST or HOST:GUEST:ro, with an absolute path for the guest")?;
        match (host, guest.trim_end_matches('/')) {
            ("", _) => Err("expected HOST:GUEST: there is no path on the host".into()),
            (_, "") => Err("the guest's root is set with --root DIR".into()),
            (_, guest) if guest.contains(':') => Err("only :ro may follow the guest's path".into()),
            (host, guest) => Ok(Self { host: host.into(), guest: guest.into(), read_only }),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[arg(long)]
        rootfs: Option<String>,
        #[arg(long)]
        initrd: Option<String>,
        #[command(flatten)]
        extras: ExtraArgs,
    }

    fn parse(line: &[&str]) -> ExtraArgs {
        Line::try_parse_from([&["run"], line].concat()).expect("valid").extras
    }

    #[test]
    fn gdb_has_a_usual_port_and_waiting_implies_it() {
        for (line, port, wait) in
            [(&["--gdb"][..], 1234, false), (&["--gdb", "99"], 99, false), (&["--gdb-wait"], 1234, true)]
        {
            let extras = parse(line).extras().expect("valid");
            assert_eq!(extras.debug.gdb, Some(Gdb { port, wait }), "{line:?}");
        }
        let none = parse(&[]).extras().expect("valid");
        assert!(none.debug.gdb.is_none() && none.debug.dump.is_none() && !none.has_devices());
    }

    #[test]
    fn options_that_need_qemu_are_refused_elsewhere() {
        for line in [&["--net", "user"][..], &["--share", "/tmp:/x"], &["--root", "host"]] {
            let args = parse(line);
            let error = args.check(Chosen::Refault).expect_err("no QEMU").to_string();
            assert!(error.contains(line[0]) && error.contains("--host qemu"), "{error}");
            assert!(args.check(Chosen::Nested).is_err() && args.check(Chosen::Qemu).is_ok());
        }
        assert!(parse(&[]).check(Chosen::Refault).is_ok());
    }

    #[test]
    fn gdb_and_cores_work_on_every_host_but_gdb_not_on_a_nested_one() {
        let place = std::env::temp_dir().join("core");
        let dump = parse(&["--dump", place.to_str().expect("UTF-8")]);
        for host in [Chosen::Refault, Chosen::Nested, Chosen::Qemu] {
            assert!(dump.check(host).is_ok(), "{host:?}");
            assert!(parse(&["--dump", "/nonexistent/core"]).check(host).is_err(), "{host:?}");
        }
        for line in [&["--gdb", "0"][..], &["--gdb", "0", "--gdb-wait"]] {
            assert!(parse(line).check(Chosen::Refault).is_ok() && parse(line).check(Chosen::Qemu).is_ok());
            let error = parse(line).check(Chosen::Nested).expect_err("out of reach").to_string();
            assert!(error.contains("--gdb") && error.contains("no network"), "{error}");
        }
    }

    #[test]
    fn a_share_names_a_folder_and_a_path_in_the_guest() {
        let share =
            |text: &str| text.parse::<ShareSpec>().map(|share| (share.host, share.guest, share.read_only));
        assert_eq!(share("/a:/b"), Ok(("/a".into(), "/b".into(), false)));
        assert_eq!(share("c:/x:/b/:ro"), Ok(("c:/x".into(), "/b".into(), true)));
        for wrong in ["/a", "/a:b", ":/b", "/a:/", "/a:/b:rw"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        assert!(parse(&["--share", "/nonexistent:/x"]).extras().is_err());
    }

    #[test]
    fn the_hosts_root_is_read_only() {
        let extras = parse(&["--share", "/tmp:/x", "--root", "host"]).extras().expect("valid");
        assert_eq!(extras.shares[0], Share { host: "/".into(), guest: "/".into(), read_only: true });
        assert_eq!(parse(&["--root", "host", "--net", "user"]).uses(), [Use::Share, Use::Net]);
    }
}
