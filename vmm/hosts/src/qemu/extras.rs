//! What QEMU gives a guest besides CPUs and memory: gdb, a network, the host's folders, a core of its memory.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::emulation::doubled_commas;
use refault_machine::debug::Debug;

/// PCI slots of these devices, away from the NICs, which count up from 3, and from the IOMMU at 0x1e.
const NET_SLOT: u8 = 0x1d;
const FIRST_SHARE_SLOT: u8 = 0x14;
/// Number of shares for which there are slots.
pub const SHARES_MAX: usize = (NET_SLOT - FIRST_SHARE_SLOT) as usize;

/// A folder of the host that the guest can access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Path on the host.
    pub host: PathBuf,
    /// Where the guest mounts it; `/` makes it the root file system, below an overlay in memory that takes all writes.
    pub guest: String,
    /// QEMU never writes to it, whatever the guest does.
    pub read_only: bool,
}

/// What a guest gets besides CPUs, memory and our devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// How the guest is debugged.
    pub debug: Debug,
    /// Whether there is a network behind QEMU's address translation.
    pub net: bool,
    /// Shared folders; the guest identifies them by [`Share::tag`].
    pub shares: Vec<Share>,
}

impl Share {
    /// The mount tag of the share with this index.
    pub fn tag(index: usize) -> String {
        format!("share{index}")
    }
}

impl Extras {
    /// Whether the guest needs drivers for devices of QEMU.
    pub fn has_devices(&self) -> bool {
        self.net || !self.shares.is_empty() || self.debug.dump.is_some()
    }

    /// Adds everything to QEMU's command line.
    pub(super) fn add(&self, command: &mut Command) {
        if let Some(gdb) = self.debug.gdb {
            command.args(["-gdb", &format!("tcp:127.0.0.1:{}", gdb.port)]);
            if gdb.wait {
                command.arg("-S");
            }
        }
        if self.net {
            command.args(["-netdev", "user,id=net"]);
            device(
                command,
                NET_SLOT,
                serde_json::json!({ "driver": "virtio-net-pci", "netdev": "net", "romfile": "" }),
            );
        }
        for (slot, (index, share)) in (FIRST_SHARE_SLOT..).zip(self.shares.iter().enumerate()) {
            let tag = Share::tag(index);
            let mut folder =
                OsString::from(format!("local,id={tag},security_model=none,multidevs=remap,path="));
            folder.push(doubled_commas(share.host.as_os_str()));
            if share.read_only {
                folder.push(",readonly=on");
            }
            command.arg("-fsdev").arg(folder);
            let options = serde_json::json!({ "driver": "virtio-9p-pci", "fsdev": tag, "mount_tag": tag });
            device(command, slot, options);
        }
        if self.debug.dump.is_some() {
            // A guest that resets stays paused until its memory is written; see `monitor`.
            command.args(["-action", "reboot=shutdown,shutdown=pause,panic=pause"]);
            // The kernel reports where its symbols are through this device, for the core's readers.
            command.args(["-device", "vmcoreinfo"]);
        }
    }
}

fn device(command: &mut Command, slot: u8, mut options: serde_json::Value) {
    options["addr"] = format!("{slot:#x}").into();
    command.args(["-device", &options.to_string()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use refault_machine::debug::Gdb;

    fn arguments(extras: &Extras) -> Vec<String> {
        let mut command = Command::new("qemu");
        extras.add(&mut command);
        command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn without_extras_nothing_is_added() {
        assert!(arguments(&Extras::default()).is_empty() && !Extras::default().has_devices());
        assert_eq!(Debug::default().kernel_arguments(), "");
    }

    #[test]
    fn gdb_can_connect_from_this_machine_only() {
        let debug = |wait| Debug { gdb: Some(Gdb { port: 1235, wait }), ..Debug::default() };
        let gdb = |wait| Extras { debug: debug(wait), ..Extras::default() };
        assert_eq!(arguments(&gdb(false)), ["-gdb", "tcp:127.0.0.1:1235"]);
        assert!(arguments(&gdb(true)).contains(&"-S".to_string()));
        assert_eq!(debug(false).kernel_arguments(), "nokaslr");
    }

    #[test]
    fn a_read_only_share_is_read_only_in_qemu() {
        let share = |path: &str, read_only| Share { host: path.into(), guest: "/mnt".into(), read_only };
        let extras = Extras { shares: vec![share("/a,b", true), share("/c", false)], ..Extras::default() };
        let arguments = arguments(&extras);
        let folders: Vec<_> = arguments.iter().filter(|argument| argument.starts_with("local,")).collect();
        assert!(folders[0].ends_with(",path=/a,,b,readonly=on"), "{folders:?}");
        assert!(folders[1].ends_with(",path=/c"), "{folders:?}");
        assert!(arguments.iter().any(|argument| argument.contains(r#""addr":"0x15""#)), "{arguments:?}");
    }
}
