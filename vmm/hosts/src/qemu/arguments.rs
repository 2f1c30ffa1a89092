//! QEMU's command line for a machine of ours.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::Result;

use crate::emulation::{EMULATED_CPU, doubled_commas, tsc_khz};
use crate::memory_row::{MemoryRow, ONE_NODE};
use crate::serve::FunctionSlot;
use crate::serve::arguments::device;
use refault_machine::config::MachineConfig;

/// The guest's serial ports: I/O port and interrupt line. No two share a line, since lines are edge-triggered.
const SERIAL: [(u16, u8); 3] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 5)];

/// The sockets of one run, in a folder that only we can access.
pub(super) struct Sockets<'a>(pub(super) &'a Path);

impl Sockets<'_> {
    /// The path of the socket with this name.
    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }

    /// The path of a serial port's socket.
    pub(super) fn serial(&self, port: usize) -> std::path::PathBuf {
        self.path(&format!("ttyS{port}"))
    }
}

/// Files that QEMU opens by descriptor: they must stay open until it has started.
pub(super) struct Files<'a> {
    /// All initial RAM file systems, concatenated.
    pub(super) initrd: &'a File,
    /// Path of the file with the DMAR table.
    pub(super) dmar: &'a Path,
}

/// Adds the whole machine to QEMU's command line.
pub(super) fn add(
    command: &mut Command,
    config: &MachineConfig,
    row: &MemoryRow,
    slots: &[Arc<FunctionSlot>],
    sockets: &Sockets<'_>,
    files: &Files<'_>,
) -> Result<()> {
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-machine", &format!("q35,max-ram-below-4g={},vmport=off,usb=off", row.low)]);
    command.args(["-accel", "tcg,thread=multi", "-cpu", EMULATED_CPU]);
    // With a single possible CPU, QEMU's atomic operations are not atomic to other processes.
    let cpus = usize::from(config.cpus.max(2));
    command.args(["-smp", &format!("{},maxcpus={cpus}", config.cpus)]);
    row.add(command, &config.pmem, cpus);
    command.arg("-kernel").arg(&config.kernel);
    command.arg("-initrd").arg(format!("/proc/{}/fd/{}", std::process::id(), files.initrd.as_raw_fd()));
    command.arg("-append").arg(format!("{}{}{}", config.cmdline, row.command_line(), kernel_arguments()));
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

/// Arguments for every guest kernel, including the frequency of the time stamp counter, which is the host's: on a busy host
/// a kernel that measures it against emulated timers is far off, and may conclude that the timers do not work.
fn kernel_arguments() -> String {
    let clock = tsc_khz().map(|khz| format!(" tsc_early_khz={khz} tsc=reliable")).unwrap_or_default();
    format!(" {ONE_NODE} no_timer_check{clock}")
}
