//! A tap device: frames to and from the host's kernel.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use refault_os::tap;

use crate::line::Line;

/// A queue of a tap device.
pub(crate) struct Tap(File);

impl Tap {
    pub(crate) fn open(name: &str) -> Result<Self> {
        // The kernel would make a missing one for root, which leads nowhere and is gone at the end.
        ensure!(
            Path::new("/sys/class/net").join(name).join("tun_flags").exists(),
            "this host has no tap device {name}: {}",
            how_to_make(name)
        );
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .context("cannot open /dev/net/tun: is the module tun loaded, and may this user open it?")?;
        match tap::attach(&file, name) {
            Ok(()) => Ok(Self(file)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                bail!("this user may not use {name}: {}", how_to_make(name))
            }
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                bail!("{name} is in use by another program")
            }
            Err(error) => Err(error).with_context(|| format!("cannot use {name} as a tap device")),
        }
    }

    pub(crate) fn share(&self) -> Result<Self> {
        self.0.try_clone().map(Self).context("cannot duplicate a file descriptor")
    }

    /// Reads frames until the outlet ends.
    pub(crate) fn read(&self, line: &Line) {
        line.read(&self.0, |bytes| (&self.0).read(bytes));
    }

    /// Sends frames until the outlet ends.
    pub(crate) fn write(&self, line: &Line) {
        line.write(|frame| (&self.0).write(frame));
    }
}

fn how_to_make(name: &str) -> String {
    format!("have root make it, with \"ip tuntap add {name} mode tap user $USER && ip link set {name} up\"")
}
