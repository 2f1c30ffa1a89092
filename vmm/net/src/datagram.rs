//! One frame in each datagram of UDP.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result};

use crate::line::Line;

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

    /// Reads frames until the outlet ends.
    pub(crate) fn read(&self, line: &Line) {
        line.read(&self.0, |bytes| self.0.recv(bytes));
    }

    /// Sends frames until the outlet ends.
    pub(crate) fn write(&self, line: &Line) {
        line.write(|frame| self.0.send(frame));
    }
}
