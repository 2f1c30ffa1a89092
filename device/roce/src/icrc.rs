//! The invariant CRC: over all of a packet that does not change on its way (IBTA volume 1, §7.8.1; annex A17.3.3).
//!
//! It is the CRC-32 of Ethernet over eight bytes of ones, in place of InfiniBand's local header, and then the packet from its IP
//! header on, in which the fields that routers change are ones. It is stored least significant byte first.

use crate::ethernet::{IPV4_BYTES, IPV6_BYTES, UDP_BYTES};

/// Bytes of an ICRC.
pub const BYTES: usize = 4;

/// CRC-32 of eight bytes of ones.
const SEED: u32 = 0x2144_df1c;

const BTH_BYTES: usize = 12;
/// Byte of the base header that holds FECN, BECN and six reserved bits.
const BTH_CONGESTION: usize = 4;

/// How the ICRC of a FLUSH is computed. That of any other packet is the same both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlushIcrc {
    /// As the specification has it.
    #[default]
    Standard,
    /// As soft-RoCE does: its table of opcodes says that a FLUSH's payload begins at the base header, so the headers count a
    /// second time (rxe_opcode.c, rxe_icrc.c of Linux 7.2).
    SoftRoce,
}

/// The ICRC of a packet. `packet` begins with an IP header of `ip_header` bytes, 20 or 40, and ends before the ICRC; it
/// has a base header at least, or there is none.
pub(crate) fn compute(packet: &[u8], ip_header: usize, flush: FlushIcrc) -> Option<[u8; BYTES]> {
    let bth = ip_header + UDP_BYTES;
    let mut masked = [0; IPV6_BYTES + UDP_BYTES + BTH_BYTES];
    let head = masked.get_mut(..bth + BTH_BYTES)?;
    let (changing, rest) = packet.split_at_checked(head.len())?;
    head.copy_from_slice(changing);
    let [ip, udp_checksum, congestion] = [0, ip_header + 6, bth + BTH_CONGESTION];
    if ip_header == IPV4_BYTES {
        // Type of service, time to live, checksum.
        for at in [1, 8, 10, 11] {
            head[ip + at] = 0xff;
        }
    } else {
        // Traffic class and flow label, hop limit.
        head[ip] |= 0x0f;
        for at in [1, 2, 3, 7] {
            head[ip + at] = 0xff;
        }
    }
    head[udp_checksum] = 0xff;
    head[udp_checksum + 1] = 0xff;
    head[congestion] = 0xff;
    let mut crc = crc32fast::Hasher::new_with_initial(SEED);
    crc.update(head);
    crc.update(rest);
    if flush == FlushIcrc::SoftRoce {
        crc.update(&packet[bth..]);
    }
    Some(crc.finalize().to_le_bytes())
}
