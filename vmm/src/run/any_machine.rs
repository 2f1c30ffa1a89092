//! A machine of either kind, and its input.

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use anyhow::Result;

use super::output::INPUT_WINDOW;
use super::{Backend, Spec};
use refault_guest::relay::{Credit, Frame, pump_input};
use refault_hosts::qemu;
use refault_machine::config::{ExitReason, MachineConfig};
use refault_machine::{Consoles, Devices, KvmMachine, MachineHandle, MachineParts};
use refault_os::syscalls::{ThreadKind, confine};

/// Our own machine, or QEMU's.
pub(super) enum AnyMachine {
    Kvm(KvmMachine),
    Qemu(Box<qemu::QemuMachine>),
}

impl AnyMachine {
    pub(super) fn new(
        spec: &Spec,
        config: MachineConfig,
        consoles: Consoles,
        devices: impl FnOnce(&MachineParts) -> Result<Devices>,
    ) -> Result<Self> {
        Ok(match &spec.backend {
            Backend::Kvm => {
                Self::Kvm(KvmMachine::new(config, consoles, devices)?.with_debug(&spec.extras.debug)?)
            }
            Backend::Qemu(emulator) => {
                let (emulator, extras) = (emulator.clone(), spec.extras.clone());
                let machine = qemu::QemuMachine::new(emulator, config, extras, consoles, devices)?;
                Self::Qemu(Box::new(machine.confined(spec.sandbox.is_some())))
            }
        })
    }

    pub(super) fn handle(&self) -> MachineHandle {
        match self {
            Self::Kvm(machine) => machine.handle(),
            Self::Qemu(machine) => machine.handle(),
        }
    }

    pub(super) fn run(self) -> Result<ExitReason> {
        match self {
            Self::Kvm(machine) => machine.run(),
            Self::Qemu(machine) => machine.run(),
        }
    }
}

/// Sends the guest its input, from a thread that a read of standard input may block forever.
pub(super) fn feed(
    mut input: Box<dyn Read + Send>,
    handle: MachineHandle,
    credit: Arc<Credit>,
    relayed: bool,
) {
    std::thread::spawn(move || {
        confine(ThreadKind::Other);
        if relayed {
            pump_input(input, &credit, |frame: &Frame| {
                handle.inject(1, &frame.encode());
                true
            });
            return;
        }
        let mut buffer = [0u8; INPUT_WINDOW];
        while let Ok(count @ 1..) = input.read(&mut buffer) {
            handle.inject(0, buffer.get(..count).unwrap_or_default());
        }
    });
}

/// Sends lines of the control channel back to the guest, from a thread of its own: the guest may never read them.
pub(super) fn answer(lines: Receiver<String>, handle: MachineHandle) {
    std::thread::spawn(move || {
        confine(ThreadKind::Other);
        lines.iter().for_each(|line| handle.inject(2, format!("{line}\n").as_bytes()));
    });
}

/// Sends the guest later sizes of its terminal, once its init can take them.
pub(super) fn resize(sizes: Receiver<(u16, u16)>, handle: MachineHandle, credit: Arc<Credit>) {
    std::thread::spawn(move || {
        confine(ThreadKind::Other);
        if credit.wait_open() {
            sizes.iter().for_each(|(columns, rows)| handle.inject(1, &Frame::Size(columns, rows).encode()));
        }
    });
}
