//! QEMU's arguments for the devices, and for a machine that they fit.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::FunctionSlot;
use crate::emulation::EMULATED_CPU;

/// PCI device number of the IOMMU's function: a slot of its own, because the kernel gives functions that share a slot no
/// PASIDs.
const IOMMU_DEVICE: u8 = 0x1e;
/// How long QEMU waits for a reply, in milliseconds. After a timeout the connection is lost for good, and a debugger or a
/// busy host may delay replies.
const REPLY_TIMEOUT_MS: u32 = 600_000;

/// The value of QEMU's `-device` for a slot whose socket is at `path`.
pub fn device(slot: &FunctionSlot, path: &Path) -> Value {
    let device = slot.bdf.map_or(IOMMU_DEVICE, |bdf| bdf.devfn() >> 3);
    let mut value = json!({
        "driver": "vfio-user-pci",
        "id": slot.name,
        "addr": format!("{device:#x}"),
        "socket": { "type": "unix", "path": path },
        "x-msg-timeout": REPLY_TIMEOUT_MS,
    });
    if slot.bdf.is_none() {
        // A CPU's write to the IOMMU must take effect before its later writes to the NIC.
        value["x-no-posted-writes"] = true.into();
    }
    value
}

/// The size of a machine for the devices.
#[derive(Clone, Copy, Debug)]
pub struct MachineSize {
    /// Memory in bytes.
    pub memory: u64,
    /// Number of CPUs.
    pub cpus: u16,
}

/// The arguments for the machine, one option per line.
pub fn machine(shape: MachineSize) -> Vec<String> {
    let MachineSize { memory, cpus } = shape;
    let mut lines = vec![
        "-machine q35".into(),
        format!("-m {}M", memory >> 20),
        // With a single possible CPU, QEMU's atomic operations are not atomic to other processes.
        format!("-smp {cpus},maxcpus={}", cpus.max(2)),
    ];
    lines.extend(additions(memory));
    lines
}

/// Further arguments that a q35 machine with `memory` bytes needs.
pub fn additions(memory: u64) -> Vec<String> {
    vec![
        // Devices of another process can access only shared memory.
        format!("-object memory-backend-memfd,id=ram,size={}M,share=on", memory >> 20),
        "-machine memory-backend=ram".into(),
        format!("-cpu {EMULATED_CPU}"),
    ]
}

/// The arguments for the devices, one option per line, with values quoted for a shell.
pub fn devices<'a>(slots: impl IntoIterator<Item = &'a FunctionSlot>, folder: &Path) -> Vec<String> {
    let mut lines =
        vec![format!("-acpitable file={}", quoted(&folder.join(super::DMAR_FILE).display().to_string()))];
    for slot in slots {
        let device = device(slot, &folder.join(&slot.name)).to_string();
        lines.push(format!("-device {}", quoted(&device)));
    }
    lines
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-,=".contains(character);
    if word.chars().all(plain) {
        return word.into();
    }
    let mut text = String::from("'");
    for piece in word
        .split('\'')
        .enumerate()
        .map(|(index, piece)| if index == 0 { piece.into() } else { format!("'\\''{piece}") })
    {
        let _ = write!(text, "{piece}");
    }
    text + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_change_them() {
        assert_eq!(quoted("/tmp/a-b_c.sock"), "/tmp/a-b_c.sock");
        assert_eq!(quoted(r#"{"a":1}"#), r#"'{"a":1}'"#);
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn a_machine_has_two_possible_cpus_at_least() {
        let lines = machine(MachineSize { memory: 1 << 30, cpus: 1 });
        assert!(
            lines.contains(&"-smp 1,maxcpus=2".into()) && lines.contains(&"-m 1024M".into()),
            "{lines:?}"
        );
    }
}
