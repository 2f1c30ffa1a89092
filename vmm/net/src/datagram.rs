//! One frame in each datagram of UDP.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result};

use crate::line::{FRAME_MAX, Line};
use crate::queue::Queue;

/// A socket that is connected to the other side.
pub(crate) struct Datagrams(UdpSocket);

impl Datagrams {
    pub(crate) fn open(local: SocketAddr, remote: SocketAddr) -> Result<Self> {
        let socket = UdpSocket::bind(local)
            .with_context(|| format!("cannot use {local}: is it an address of this host, and free?"))?;
        socket.connect(remote).with_context(|| format!("cannot reach {remote}"))?;
        Ok(Self(socket))
    }

    pub(crate) fn share(&self) -> Result<Self> {
        self.0.try_clone().map(Self).context("cannot duplicate a socket")
    }

    /// Reads frames until the outlet ends. What is longer than a frame is dropped.
    pub(crate) fn read(&self, line: &Line) {
        line.wire.set_signal(true);
        let mut bytes = vec![0; FRAME_MAX + 1];
        while let Some(is_ready) = line.wait(&self.0) {
            if !is_ready {
                continue;
            }
            match self.0.recv(&mut bytes) {
                Ok(length) if length <= FRAME_MAX => line.deliver(&bytes[..length]),
                // That the other side is not there yet is said by an error, too.
                Ok(_) | Err(_) => Queue::count(&line.queue.dropped),
            }
        }
    }

    /// Sends frames until the outlet ends.
    pub(crate) fn write(&self, line: &Line) {
        while let Some(frame) = line.next() {
            let sent = self.0.send(&frame).is_ok();
            Queue::count(if sent { &line.queue.sent } else { &line.queue.dropped });
        }
    }
}
