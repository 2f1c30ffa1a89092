//! QEMU's command line for a machine of ours.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::Result;

use super::layout::Layout;
use crate::accel::{EMULATED_CPU, tsc_khz};
use crate::config::{MachineConfig, PmemBacking};
use crate::serve::Slot;
use crate::serve::arguments::device;

/// The guest's serial ports: I/O port and interrupt line. No two share a line, for lines are edge-triggered.
const SERIAL: [(u16, u8); 3] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 5)];

/// Sockets of one run, in a folder that only we can enter.
pub(super) struct Sockets<'a>(pub(super) &'a Path);

impl Sockets<'_> {
    /// The path of one.
    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }

    /// Of a serial port.
    pub(super) fn serial(&self, port: usize) -> std::path::PathBuf {
        self.path(&format!("ttyS{port}"))
    }
}

/// Files that QEMU opens by number: they have to stay open until it has.
pub(super) struct Files<'a> {
    /// All initial RAM file systems in one.
    pub(super) initrd: &'a File,
    /// The DMAR table.
    pub(super) dmar: &'a Path,
}

/// Adds everything about the machine to QEMU's command line.
pub(super) fn add(
    command: &mut Command,
    config: &MachineConfig,
    layout: &Layout,
    slots: &[Arc<Slot>],
    sockets: &Sockets<'_>,
    files: &Files<'_>,
) -> Result<()> {
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-machine", &format!("q35,max-ram-below-4g={},vmport=off,usb=off", layout.low)]);
    command.args(["-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU]);
    // With a single possible CPU the emulation leaves out what makes its atomic operations atomic to other processes.
    command.args(["-smp", &format!("{},maxcpus={}", config.cpus, config.cpus.max(2))]);
    command.args(["-m", &format!("{}M", layout.total() >> 20)]);
    memory(command, config, layout);
    command.arg("-kernel").arg(&config.kernel);
    command.arg("-initrd").arg(format!("/proc/{}/fd/{}", std::process::id(), files.initrd.as_raw_fd()));
    command.arg("-append").arg(format!("{}{}{}", config.cmdline, layout.command_line(), kernel_arguments()));
    for (port, (base, line)) in SERIAL.into_iter().enumerate() {
        let mut chardev = OsString::from(format!("socket,id=serial{port},path="));
        chardev.push(doubled_commas(sockets.serial(port).as_os_str()));
        command.arg("-chardev").arg(chardev);
        let device = serde_json::json!({
            "driver": "isa-serial", "index": port, "chardev": format!("serial{port}"), "iobase": base, "irq": line,
        });
        command.args(["-device", &device.to_string()]);
    }
    let mut monitor = OsString::from("unix:");
    monitor.push(doubled_commas(sockets.path("monitor").as_os_str()));
    command.arg("-qmp").arg(monitor);
    let mut table = OsString::from("file=");
    table.push(doubled_commas(files.dmar.as_os_str()));
    command.arg("-acpitable").arg(table);
    for slot in slots {
        command.args(["-device", &device(slot, &sockets.path(&slot.name)).to_string()]);
    }
    Ok(())
}

/// What every kernel here is told. One NUMA node: the others are our way to have files as memory, and with them a kernel
/// does not boot that is to make some up (numa=fake=). And the speed of the time stamp counter, which is the host's: on a
/// busy host a kernel that measures it against emulated timers is far off, and may find that the timers do not work.
fn kernel_arguments() -> String {
    let clock = tsc_khz().map(|khz| format!(" tsc_early_khz={khz} tsc=reliable")).unwrap_or_default();
    format!(" numa=noacpi no_timer_check{clock}")
}

/// RAM is the first node; each persistent region is one, behind a gap that is one too.
fn memory(command: &mut Command, config: &MachineConfig, layout: &Layout) {
    let mut node = 0;
    let mut add = |object: serde_json::Value, cpus: bool| {
        command.args(["-object", &object.to_string()]);
        let id = object["id"].as_str().unwrap_or_default();
        let cpus = if cpus { format!(",cpus=0-{}", config.cpus.max(2) - 1) } else { String::new() };
        command.args(["-numa", &format!("node,nodeid={node},memdev={id}{cpus}")]);
        node += 1;
    };
    let memfd = |id: &str, size: u64| serde_json::json!({ "qom-type": "memory-backend-memfd", "id": id, "size": size, "share": true });
    add(memfd("ram", layout.ram), true);
    for (index, (region, range)) in config.pmem.iter().zip(&layout.pmem).enumerate() {
        add(memfd(&format!("gap{index}"), layout.gap()), false);
        let (id, size) = (format!("pmem{index}"), range.end - range.start);
        let file = |path: &Path, readonly: bool| {
            let path = own_path(path);
            serde_json::json!({
                "qom-type": "memory-backend-file", "id": id, "size": size, "mem-path": path, "share": true,
                "readonly": readonly,
            })
        };
        let object = match &region.backing {
            PmemBacking::Anonymous => memfd(&id, size),
            PmemBacking::Shared(path) => file(path, false),
            PmemBacking::Private(path) => file(path, true),
        };
        add(object, false);
    }
}

/// A path that names a file of this process is one that QEMU would take for one of its own.
pub(super) fn own_path(path: &Path) -> std::path::PathBuf {
    match path.strip_prefix("/proc/self") {
        Ok(rest) => Path::new("/proc").join(std::process::id().to_string()).join(rest),
        Err(_) => path.to_path_buf(),
    }
}

/// In an option of `key=value` pairs a comma stands for itself when it is doubled.
pub(super) fn doubled_commas(text: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let doubled =
        text.as_bytes().iter().flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
    OsString::from_vec(doubled.collect())
}
