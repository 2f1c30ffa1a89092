//! The sandbox of a run: the machine's files, what the user's options name, and nothing else.

use std::path::Path;

use super::{Backend, Spec};
use anyhow::{Context, Result, anyhow};
use refault_hosts::nested::inside;
use refault_machine::config::{MachineConfig, PmemBacking};
use refault_machine::memory::pmem;
use refault_os::message::note;
use refault_os::sandbox::{self, Grants};
use refault_os::scratch::Scratch;
use refault_os::syscalls::Programs;

/// Devices of a machine on KVM: KVM itself, and the physical memory in which an emulated machine was lent files.
const KVM: &str = "/dev/kvm";
const PHYSICAL_MEMORY: &str = "/dev/mem";
/// What a guest's network needs from the host to look names up.
const NAMES: [&str; 4] = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf"];

/// The option that turns the sandbox off.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct SandboxArgs {
    /// Do not confine refault and QEMU: a guest that takes one of them over can then do all that you can
    #[arg(long)]
    no_sandbox: bool,
}

impl SandboxArgs {
    /// No grants yet, or `None` without a sandbox.
    pub(crate) fn grants(self) -> Option<Grants> {
        if self.no_sandbox && !inside() {
            note(
                "--no-sandbox: a guest that takes refault or QEMU over can read and write all your files, use your \
                 network and start programs",
            );
        }
        (!self.no_sandbox).then(Grants::default)
    }
}

/// Enters the sandbox if the run wants one, and returns the folder of its temporary files, which is removed when it is
/// dropped.
pub(super) fn enter(spec: &Spec, config: &MachineConfig) -> Result<Option<Scratch>> {
    let Some(grants) = &spec.sandbox else { return Ok(None) };
    let mut grants = grants.clone();
    machine(&mut grants, config)?;
    options(&mut grants, spec)?;
    let scratch = scratch(&mut grants)?;
    let programs = match &spec.backend {
        Backend::Kvm => {
            grants.write(KVM);
            Programs::Never
        }
        Backend::Qemu(emulator) => {
            emulator.folders().into_iter().for_each(|folder| grants.execute(folder));
            grants.execute_system();
            Programs::UntilSealed
        }
    };
    sandbox::enter(&grants, programs)?;
    Ok(Some(scratch))
}

/// A folder for temporary files. All that are made later are in it.
fn scratch(grants: &mut Grants) -> Result<Scratch> {
    grants.remove_folders(std::env::temp_dir());
    let folder = Scratch::new().context("cannot make a temporary folder")?;
    grants.write(folder.path());
    tempfile::env::override_temp_dir(folder.path())
        .map_err(|before| anyhow!("temporary files are bound to {} already", before.display()))?;
    Ok(folder)
}

/// The files that the machine is made of.
fn machine(grants: &mut Grants, config: &MachineConfig) -> Result<()> {
    grants.read(&config.kernel);
    config.initrds.iter().for_each(|path| grants.read(path));
    for region in &config.pmem {
        match &region.backing {
            PmemBacking::Anonymous => {}
            PmemBacking::Private(path) => grants.read(path),
            PmemBacking::Shared(path) => {
                if !path.exists() {
                    // Only a file that exists can be granted alone.
                    pmem::open(region)?;
                }
                grants.write(path);
            }
            PmemBacking::Lent(path, _) => {
                grants.read(path);
                grants.write(PHYSICAL_MEMORY);
            }
        }
    }
    Ok(())
}

/// What the user asked for besides.
fn options(grants: &mut Grants, spec: &Spec) -> Result<()> {
    let dump = spec.extras.debug.dump.iter();
    for path in spec.out.iter().map(|out| &out.host).chain(dump) {
        at(grants, path)?;
    }
    for share in &spec.extras.shares {
        if share.read_only { grants.read(&share.host) } else { grants.write(&share.host) }
    }
    if let Some(gdb) = spec.extras.debug.gdb {
        grants.listen(gdb.port);
    }
    if spec.extras.net {
        grants.network();
        NAMES.iter().for_each(|path| grants.read(*path));
    }
    Ok(())
}

fn at(grants: &mut Grants, path: &Path) -> Result<()> {
    grants.write_at(path).with_context(|| format!("cannot make the folder of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::options::parse::Out;
    use refault_machine::config::PmemConfig;

    #[test]
    fn nothing_is_writable_that_no_option_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let region = |backing| PmemConfig { backing, size: 2 << 20 };
        std::fs::write(path("root"), "").expect("written");
        let config = MachineConfig {
            kernel: path("kernel"),
            initrds: vec![path("initrd")],
            cmdline: String::new(),
            cpus: 1,
            memory: 64 << 20,
            pmem: vec![
                region(PmemBacking::Private(path("root"))),
                region(PmemBacking::Shared(path("new"))),
                region(PmemBacking::Anonymous),
            ],
            cpu_model: Default::default(),
        };
        std::fs::create_dir(path("there")).expect("made");
        let out = |name: &str| Out { guest: "/x".into(), host: path(name) };
        let spec = Spec { out: vec![out("there"), out("made/file")], ..Spec::default() };
        let mut grants = Grants::default();
        machine(&mut grants, &config).expect("granted");
        options(&mut grants, &spec).expect("granted");
        let writable: Vec<_> = grants.writable().map(Path::to_path_buf).collect();
        assert_eq!(writable, [path("made"), path("new"), path("there")]);
        assert!(path("made").is_dir() && path("new").is_file());
    }
}
