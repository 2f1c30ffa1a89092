//! The network: what a port sends into, and what it hears from there.
//!
//! A wire never blocks. What it has no room for it drops, as a switch does.

/// An Ethernet frame: its bytes from the MAC addresses on, without preamble and checksum (IEEE 802.3, 3.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EthernetFrame {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Checksums inside are computed. Between ports of one process they need not be, as with checksum offload: who takes the
    /// frame elsewhere computes them first.
    pub sealed: bool,
}

/// What a port sends into.
pub trait Wire: Send + Sync {
    /// Sends a frame, or drops it.
    fn send(&self, frame: EthernetFrame);

    /// The port gives a signal from now on, or none: the far end hears of it by [`WirePort::set_carrier`].
    fn set_signal(&self, on: bool) {
        let _ = on;
    }

    /// Whether the far end keeps up: with `false` a port had better wait with its next frame, as after a PAUSE frame
    /// (IEEE 802.3, annex 31B).
    fn is_ready(&self) -> bool {
        true
    }
}

/// What is at an end of a wire.
pub trait WirePort: Send + Sync {
    /// A frame has arrived. The port takes or drops it, and does not keep its caller for long.
    fn receive(&self, frame: EthernetFrame);

    /// There is a signal from now on, or none.
    fn set_carrier(&self, up: bool);

    /// Whether it has room for the time being, which its sender's [`Wire::is_ready`] says.
    fn has_room(&self) -> bool {
        true
    }
}
