//! From a run's specification to the machine's configuration.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::job::{Job, token};
use super::options::parse::Pmem;
use super::{Backend, Spec};
use refault_guest::GuestImage;
use refault_guest::kernel_tree::TreeKernel;
use refault_hosts::nested::{inside, lent};
use refault_hosts::qemu::Extras;
use refault_machine::config::{MachineConfig, PMEM_ALIGN, PmemBacking, PmemConfig};
use refault_machine::memory::pmem::allocate;
use refault_os::message::note;

/// Command line of every guest of ours: log to the first serial port, and end the machine on a panic.
const CMDLINE: &str = "console=ttyS0 panic=-1";
/// In an emulated machine the guest's kernel boots with one CPU, because it patches its own code while it boots: see
/// `nested/start_cpus.rs` in refault-hosts. Init brings the others up.
const ONE_CPU_FIRST: &str = " maxcpus=1";
/// With a core: on our own VMM the kernel would enter real mode for a reset, and the core would have those registers.
const BY_REGISTER: &str = "reboot=acpi";
/// A folder in memory, on most systems.
const SHARED_MEMORY: &str = "/dev/shm";

/// Error when the files to bring out do not fit.
const NO_ROOM: &str = "no room for the files to bring out; their maximum size is set with --out-size";

/// A machine's configuration, and the files that it uses. They are unnamed, so that nothing is left behind, whatever ends
/// this process.
#[derive(Debug)]
pub(super) struct MachinePlan {
    pub(super) config: MachineConfig,
    /// refault's own init runs in the guest.
    pub(super) relayed: bool,
    /// Prefix of init's lines.
    pub(super) token: String,
    results: Option<File>,
    _job: Option<File>,
}

impl MachinePlan {
    pub(super) fn new(spec: &Spec) -> Result<Self> {
        let mut plan = Self {
            config: MachineConfig {
                kernel: PathBuf::new(),
                initrds: Vec::new(),
                cmdline: cmdline(spec)?,
                cpus: spec.cpus,
                memory: spec.memory,
                pmem: regions(&spec.pmem)?,
                cpu_model: spec.cpu_model,
            },
            relayed: spec.initrd.is_none(),
            token: token(),
            results: None,
            _job: None,
        };
        plan.config.kernel = match (&spec.kernel, &spec.tree, &spec.image) {
            (Some(kernel), ..) => kernel.clone(),
            (None, Some(tree), _) => tree.kernel(),
            (None, None, Some(image)) => image.kernel(),
            (None, None, None) => bail!("no kernel: give --kernel, or let refault build its guest image"),
        };
        match &spec.initrd {
            Some(initrd) => plan.foreign(spec, initrd)?,
            None => plan.ours(spec)?,
        }
        Ok(plan)
    }

    /// The archive of collected files.
    pub(super) fn results(&self) -> Option<&File> {
        self.results.as_ref()
    }

    /// Plans a guest with the user's own initramfs, which cannot run a command.
    fn foreign(&mut self, spec: &Spec, initrd: &Path) -> Result<()> {
        let ours = !spec.command.is_empty()
            || !spec.add.is_empty()
            || !spec.out.is_empty()
            || !spec.modules.is_empty()
            || !spec.extras.shares.is_empty();
        if ours {
            bail!(
                "a COMMAND, --add, --out, --module and --share need refault's own initramfs: leave out --initrd"
            );
        }
        self.config.initrds = vec![initrd.to_path_buf()];
        if let Some(root) = &spec.rootfs {
            self.config.pmem.push(private(root)?);
        }
        Ok(())
    }

    fn ours(&mut self, spec: &Spec) -> Result<()> {
        let image =
            spec.image.as_ref().ok_or_else(|| anyhow!("no guest image: `refault guest build` makes one"))?;
        let extras = match spec.backend {
            Backend::Qemu(_) => spec.extras.clone(),
            Backend::Kvm => Extras::default(),
        };
        let mut job = Job {
            command: spec.command.clone(),
            environment: spec.environment.clone(),
            terminal: spec.terminal,
            add: spec.add.clone(),
            collect: spec.out.iter().map(|out| out.guest.clone()).collect(),
            modules: spec.modules.clone(),
            foreign_kernel: is_foreign(spec.kernel.as_deref(), image)?,
            trace: spec.trace_kib,
            ethernet: spec.ethernet,
            extras,
            token: self.token.clone(),
            ..Job::default()
        };
        if !spec.out.is_empty() {
            let size = spec.out_size.next_multiple_of(PMEM_ALIGN);
            let file = nameless(|file| allocate(file, size).map(drop).context(NO_ROOM))?;
            job.results =
                Some(self.add_region(PmemConfig { backing: PmemBacking::Shared(path_of(&file)), size }));
            self.results = Some(file);
        }
        job.root = self.add_region(private(spec.rootfs.as_deref().unwrap_or(&image.root()))?);
        let file = nameless(|file| job.write(BufWriter::new(file)))?;
        // The kernel unpacks them in this order, and later files replace earlier ones.
        self.config.initrds = vec![image.boot_archive(), image.driver_archive()];
        self.config.initrds.extend(spec.tree.as_ref().map(TreeKernel::archive));
        self.config.initrds.push(path_of(&file));
        self._job = Some(file);
        Ok(())
    }

    /// Adds a region and returns its name in the guest.
    fn add_region(&mut self, region: PmemConfig) -> String {
        let name = format!("pmem{}", self.config.pmem.len());
        self.config.pmem.push(region);
        name
    }
}

fn cmdline(spec: &Spec) -> Result<String> {
    let level = if spec.verbose { 7 } else { 5 };
    let cpus = if inside() { ONE_CPU_FIRST } else { "" };
    let tree = spec.tree.as_ref().map(TreeKernel::arguments).transpose()?.unwrap_or_default();
    let ours = format!("{CMDLINE} loglevel={level}{cpus}");
    let reset =
        if spec.backend == Backend::Kvm && spec.extras.debug.dump.is_some() { BY_REGISTER } else { "" };
    let words = [&ours, tree.as_str(), spec.extras.debug.kernel_arguments(), reset, &spec.append];
    Ok(words
        .map(|part| part.trim())
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" "))
}

/// The user's regions. In an emulated machine, files of the host are memory at a known address.
fn regions(pmem: &[Pmem]) -> Result<Vec<PmemConfig>> {
    let mut lent = lent().into_iter();
    let mut place = |pmem| {
        let PmemConfig { backing, size } = region(pmem)?;
        let backing = match backing {
            PmemBacking::Shared(path) => match lent.next() {
                Some(at) => PmemBacking::Lent(path, at),
                None => PmemBacking::Shared(path),
            },
            other => other,
        };
        Ok(PmemConfig { backing, size })
    };
    pmem.iter().map(&mut place).collect()
}

/// A region of the user. A missing file is created with the machine, if a size is given.
pub(super) fn region(pmem: &Pmem) -> Result<PmemConfig> {
    let Some(path) = &pmem.file else {
        let size = pmem.size.unwrap_or_default();
        return Ok(PmemConfig { backing: PmemBacking::Anonymous, size });
    };
    let size = match (std::fs::metadata(path), pmem.size) {
        (Ok(meta), size) => size.unwrap_or(meta.len()),
        (Err(_), Some(size)) if size.is_multiple_of(PMEM_ALIGN) => size,
        (Err(_), Some(size)) => bail!("--pmem {}: {size} bytes are not a multiple of 2 MiB", path.display()),
        (Err(error), None) => bail!("--pmem {0}: {error}; {0},size=1G creates one of 1 GiB", path.display()),
    };
    Ok(PmemConfig { backing: PmemBacking::Shared(path.clone()), size })
}

fn private(path: &Path) -> Result<PmemConfig> {
    let meta =
        std::fs::metadata(path).with_context(|| format!("cannot use root file system {}", path.display()))?;
    Ok(PmemConfig { backing: PmemBacking::Private(path.to_path_buf()), size: meta.len() })
}

/// Whether the user's kernel is not the one that the image's modules are for.
fn is_foreign(kernel: Option<&Path>, image: &GuestImage) -> Result<bool> {
    let Some(kernel) = kernel else { return Ok(false) };
    let ours = image.manifest()?.kernel;
    let mut bytes = Vec::new();
    let opened = File::open(kernel).and_then(|mut file| file.read_to_end(&mut bytes));
    opened.with_context(|| format!("cannot read kernel {}", kernel.display()))?;
    match release_of(&bytes) {
        Some(release) if release == ours => Ok(false),
        release => {
            let release = release.unwrap_or("of unknown release");
            note(&format!(
                "kernel {release} is not the image's {ours}: none of the image's modules is loaded; give --module for \
                 those not built in: pmem, erofs, overlay, and the driver"
            ));
            Ok(true)
        }
    }
}

/// The release, as `uname -r` prints it: from a bzImage's header (Documentation/arch/x86/boot.rst), or from the banner in an
/// ELF file.
fn release_of(kernel: &[u8]) -> Option<&str> {
    const BANNER: &[u8] = b"Linux version ";
    let start = match kernel.get(0x202..0x206) {
        Some(b"HdrS") => 0x200 + usize::from(u16::from_le_bytes(*kernel.get(0x20e..)?.first_chunk()?)),
        _ => kernel.windows(BANNER.len()).position(|window| window == BANNER)? + BANNER.len(),
    };
    let text = kernel.get(start..)?.split(|byte| matches!(byte, b' ' | 0)).next()?;
    std::str::from_utf8(text).ok()
}

/// An unnamed file with the contents written by `fill`, in memory if there is room.
fn nameless(fill: impl Fn(&File) -> Result<()>) -> Result<File> {
    let memory = Path::new(SHARED_MEMORY);
    let in_memory = || {
        let file = tempfile::tempfile_in(memory)?;
        fill(&file)?;
        Ok::<_, anyhow::Error>(file)
    };
    if let Ok(file) = in_memory() {
        return Ok(file);
    }
    let folder = std::env::temp_dir();
    let file = tempfile::tempfile_in(&folder)
        .with_context(|| format!("cannot make a temporary file in {}", folder.display()))?;
    fill(&file).with_context(|| {
        format!("neither {SHARED_MEMORY} nor {} has room: set TMPDIR to a folder that has", folder.display())
    })?;
    Ok(file)
}

/// A path by which an unnamed file can be opened again while we hold it.
fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_release_is_read_from_both_kinds_of_file() {
        let mut bzimage = vec![0u8; 0x1000];
        bzimage[0x202..0x206].copy_from_slice(b"HdrS");
        bzimage[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
        bzimage[0x500..0x512].copy_from_slice(b"7.2.12+deb13-amd64");
        assert_eq!(release_of(&bzimage), Some("7.2.12+deb13-amd64"));
        assert_eq!(release_of(b"\x7fELF....Linux version 6.1.0-x (me) #1"), Some("6.1.0-x"));
        assert_eq!(release_of(b"\x7fELF"), None);
    }

    #[test]
    fn a_pmem_file_that_is_not_there_needs_a_size() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("disk");
        let file = Some(path.clone());
        let error = region(&Pmem { file: file.clone(), size: None }).expect_err("no file, no size");
        assert!(error.to_string().contains("size=1G"), "{error}");
        assert!(region(&Pmem { file: file.clone(), size: Some(4097) }).is_err());
        assert_eq!(region(&Pmem { file: file.clone(), size: Some(4 << 20) }).expect("valid").size, 4 << 20);
        std::fs::write(&path, [0; 4096]).expect("written");
        assert_eq!(region(&Pmem { file, size: None }).expect("there now").size, 4096);
    }

    #[test]
    fn a_nameless_file_can_be_opened_again() {
        let file = nameless(|file| Ok(file.set_len(4096)?)).expect("a file");
        let again = File::options().read(true).write(true).open(path_of(&file)).expect("the same file");
        assert_eq!(again.metadata().expect("metadata").len(), 4096);
    }
}
