//! The Ethernet port: its address, and those of others.

use refault_abi::command::{
    CMD_SET_GID, CMD_SET_PORT, GID_NO_VLAN, ModifyQp, PORT_UP, QP_ATTR_AV, SetGid, SetPort,
};

use crate::ModelError;
use crate::nic::Driver;

/// An Ethernet port, as others reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAddress {
    /// MAC address.
    pub mac: [u8; 6],
    /// GID: an IPv6 address, network order.
    pub gid: [u8; 16],
}

impl PortAddress {
    /// Puts the path to this port into a change of a queue pair, from entry 0 of the own GID table.
    pub(crate) fn lead(&self, change: &mut ModifyQp) {
        debug_assert!(change.mask & QP_ATTR_AV != 0, "the change has no path");
        change.has_grh = 1;
        change.dest_gid = self.gid;
        change.dmac = self.mac;
    }
}

impl Driver {
    /// Sets the port up with this address, as entry 0 of its GID table. Event queue `eqn` learns of its signal.
    ///
    /// # Errors
    ///
    /// If a command fails: the port is not on Ethernet.
    pub fn open_port(&self, own: &PortAddress, eqn: u32) -> Result<(), ModelError> {
        let &PortAddress { mac, gid } = own;
        let set = SetPort { mac, flags: PORT_UP, eqn, ..SetPort::default() };
        self.lane0().execute::<[u8; 0]>(CMD_SET_PORT, &set)?;
        let set = SetGid { present: 1, vlan: GID_NO_VLAN, mac, gid, ..SetGid::default() };
        self.lane0().execute::<[u8; 0]>(CMD_SET_GID, &set).map(drop)
    }
}
