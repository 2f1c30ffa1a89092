//! Whole Ethernet frames: building one in three steps, without a copy of the payload, and reading one.

use std::ops::Range;

use crate::dropped::Dropped;
use crate::envelope::Envelope;
use crate::ethernet::{self, UDP_BYTES};
use crate::icrc::{self, FlushIcrc};
use crate::opcode::Operation;
use crate::packet::Packet;

/// Most bytes of payload that [`begin`] takes: those of the largest MTU.
pub const PAYLOAD_MAX: usize = 4096;

/// A packet that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// What carried it.
    pub envelope: Envelope,
    /// What it says.
    pub packet: Packet,
    /// Its payload, without padding.
    pub payload: &'a [u8],
    /// How its ICRC was computed; `None` if that was not checked.
    pub icrc: Option<FlushIcrc>,
}

/// Writes all of a frame into `frame`, in place of what it holds, but for the payload and the ICRC. Returns where the
/// payload goes, which is zeros until then. `None` if `length`, in bytes, is above [`PAYLOAD_MAX`].
pub fn begin(
    frame: &mut Vec<u8>,
    envelope: &Envelope,
    packet: &Packet,
    length: usize,
) -> Option<Range<usize>> {
    if length > PAYLOAD_MAX {
        return None;
    }
    let pad = length.next_multiple_of(4) - length;
    let inside = u16::try_from(packet.header_bytes() + length + pad + icrc::BYTES).ok()?;
    frame.clear();
    ethernet::write(envelope, inside, frame);
    packet.write(u8::try_from(pad).ok()?, frame);
    let start = frame.len();
    frame.resize(start + length + pad + icrc::BYTES, 0);
    Some(start..start + length)
}

/// Computes the ICRC of a frame that [`begin`] made, once its payload is in.
///
/// # Errors
///
/// As [`parse`], if it is no such frame.
pub fn seal(frame: &mut [u8], flush: FlushIcrc) -> Result<(), Dropped> {
    let opened = ethernet::read(frame)?;
    let covered = opened.ip.len().checked_sub(icrc::BYTES).ok_or(Dropped::Short)?;
    let flush = if is_flush(opened.ip, opened.ip_header) { flush } else { FlushIcrc::Standard };
    let crc = icrc::compute(&opened.ip[..covered], opened.ip_header, flush).ok_or(Dropped::Short)?;
    let place = opened.ip_start + covered;
    frame[place..place + icrc::BYTES].copy_from_slice(&crc);
    Ok(())
}

/// Reads a frame and checks its ICRC, that of a FLUSH both ways.
///
/// # Errors
///
/// The first thing that is wrong with it.
pub fn parse(frame: &[u8]) -> Result<Received<'_>, Dropped> {
    let opened = ethernet::read(frame)?;
    let (covered, stored) = opened.ip.split_last_chunk::<{ icrc::BYTES }>().ok_or(Dropped::Short)?;
    let received = unchecked(&opened, covered)?;
    let fits = |way| icrc::compute(covered, opened.ip_header, way) == Some(*stored);
    let is_flush = received.packet.opcode.operation() == Operation::Flush;
    let icrc = match () {
        () if fits(FlushIcrc::Standard) => FlushIcrc::Standard,
        () if is_flush && fits(FlushIcrc::SoftRoce) => FlushIcrc::SoftRoce,
        () => return Err(Dropped::Icrc),
    };
    Ok(Received { icrc: Some(icrc), ..received })
}

/// Reads a frame that did not leave the process, whose ICRC need not have been computed.
///
/// # Errors
///
/// As [`parse`], but for the ICRC.
pub fn parse_unsealed(frame: &[u8]) -> Result<Received<'_>, Dropped> {
    let opened = ethernet::read(frame)?;
    let covered = opened.ip.len().checked_sub(icrc::BYTES).ok_or(Dropped::Short)?;
    unchecked(&opened, &opened.ip[..covered])
}

fn unchecked<'a>(opened: &ethernet::Opened<'_>, covered: &'a [u8]) -> Result<Received<'a>, Dropped> {
    let transport = covered.get(opened.ip_header + UDP_BYTES..).ok_or(Dropped::Short)?;
    let (packet, payload) = Packet::read(transport)?;
    Ok(Received { envelope: opened.envelope, packet, payload, icrc: None })
}

fn is_flush(ip: &[u8], ip_header: usize) -> bool {
    let opcode = ip.get(ip_header + UDP_BYTES).and_then(|&byte| crate::Opcode::from_byte(byte));
    opcode.is_some_and(|opcode| opcode.operation() == Operation::Flush)
}
