//! A tap device: frames to and from the host's kernel.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};

use anyhow::{Context, Result, bail};
use refault_os::tap;

use crate::line::{FRAME_MAX, Line};
use crate::queue::Queue;

/// A queue of a tap device.
pub(crate) struct Tap(File);

impl Tap {
    pub(crate) fn open(name: &str) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .context("cannot open /dev/net/tun: is the module tun loaded, and may this user open it?")?;
        match tap::attach(&file, name) {
            Ok(()) => Ok(Self(file)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!(
                "this user may not use {name}: have root make it, with \
                 \"ip tuntap add {name} mode tap user $USER && ip link set {name} up\""
            ),
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
        line.wire.set_signal(true);
        let mut bytes = vec![0; FRAME_MAX + 1];
        while let Some(is_ready) = line.wait(&self.0) {
            if !is_ready {
                continue;
            }
            match (&self.0).read(&mut bytes) {
                Ok(length) if length <= FRAME_MAX => line.deliver(&bytes[..length]),
                // The device may be down.
                Ok(_) | Err(_) => Queue::count(&line.queue.dropped),
            }
        }
    }

    /// Writes frames until the outlet ends.
    pub(crate) fn write(&self, line: &Line) {
        while let Some(frame) = line.next() {
            let sent = (&self.0).write(&frame).is_ok();
            Queue::count(if sent { &line.queue.sent } else { &line.queue.dropped });
        }
    }
}
