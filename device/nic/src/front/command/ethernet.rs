//! The Ethernet port.

use core::net::Ipv6Addr;

use refault_abi::command::{
    CAP_ETHERNET, CAP_ROCE, DeviceCaps, GID_NO_VLAN, PORT_PROMISCUOUS, PORT_UP, PortCounters, SetGid, SetPort,
};

use super::GIDS;
use super::objects::Objects;
use super::reply::{DONE, Refused, Reply, reply};
use crate::ethernet::{self, EthernetPort, Gid, MAX_FRAME, PortSetting};
use crate::front::Front;
use crate::stats::NicStats;

/// VLANs are numbered below this.
const VLANS: u16 = 4095;

impl Front {
    pub(super) fn set_gid(&self, command: &SetGid) -> Reply {
        let port = self.ethernet()?;
        let vlan = Some(command.vlan).filter(|&vlan| vlan != GID_NO_VLAN);
        if command.present > 1 || vlan.is_some_and(|vlan| vlan >= VLANS) || !port.has_roce {
            return Err(Refused::BadParameter);
        }
        let gid = Gid { address: Ipv6Addr::from(command.gid), mac: command.mac, vlan };
        let is_set = port.set_gid(command.index, Some(gid).filter(|_| command.present == 1));
        if is_set { DONE } else { Err(Refused::BadParameter) }
    }

    pub(super) fn set_port(&self, objects: &mut Objects, command: &SetPort) -> Reply {
        let port = self.ethernet()?;
        objects.eqs.find(command.eqn)?;
        if command.flags & !(PORT_UP | PORT_PROMISCUOUS) != 0 {
            return Err(Refused::BadParameter);
        }
        port.set(PortSetting {
            mac: command.mac,
            up: command.flags & PORT_UP != 0,
            promiscuous: command.flags & PORT_PROMISCUOUS != 0,
            eqn: command.eqn,
        });
        DONE
    }

    pub(super) fn query_counters(&self) -> Reply {
        let frames = self.ethernet()?.counters.stats();
        let mut stats = NicStats::default();
        self.engine.memory.add_stats(&mut stats);
        reply(&PortCounters {
            sent_packets: frames.packets_sent,
            received_packets: frames.packets_received,
            sent_bytes: frames.packet_bytes_sent,
            received_bytes: frames.packet_bytes_received,
            duplicate_requests: stats.duplicate_requests,
            out_of_sequence: stats.out_of_sequence,
            rnr_naks_received: stats.rnr_waits + stats.rnr_retries_exceeded,
            rnr_naks_sent: stats.rnr_naks,
            sequence_naks_received: stats.sequence_naks,
            retries_exceeded: stats.retries_exceeded,
            rnr_retries_exceeded: stats.rnr_retries_exceeded,
            bad_icrc: frames.bad_icrc,
            dropped: frames.unexpected + frames.malformed + frames.unwanted,
            overflow: frames.overflow,
            fault_dropped: stats.requests_dropped_on_fault + stats.datagrams_dropped_on_fault,
        })
    }

    fn ethernet(&self) -> Result<&EthernetPort, Refused> {
        self.engine.ethernet.as_ref().ok_or(Refused::BadOpcode)
    }

    /// Entries of the GID table.
    pub(super) fn gids(&self) -> u8 {
        match &self.engine.ethernet {
            Some(port) if port.has_roce => ethernet::GIDS,
            Some(_) => 0,
            None => GIDS,
        }
    }

    /// CAP_* of the port.
    pub(super) fn port_features(&self) -> u32 {
        let roce = |port: &EthernetPort| if port.has_roce { CAP_ROCE } else { 0 };
        self.engine.ethernet.as_ref().map_or(0, |port| CAP_ETHERNET | roce(port))
    }

    /// What the port adds to the device's description.
    pub(super) fn port_caps(&self) -> DeviceCaps {
        match &self.engine.ethernet {
            None => DeviceCaps::default(),
            Some(port) => DeviceCaps {
                mac: self.engine.config.mac(),
                max_frame: MAX_FRAME,
                carrier: u32::from(port.has_carrier()),
                ..DeviceCaps::default()
            },
        }
    }
}
