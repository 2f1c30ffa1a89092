use zerocopy::IntoBytes;
use zerocopy::big_endian::{U32, U64};

use crate::dropped::{Dropped, take};
use crate::headers::{
    AethWire, AtomicEth, AtomicWire, BthWire, Deth, DethWire, Feth, FethWire, LOW_24, Reth, RethWire,
};
use crate::opcode::{Headers, Opcode};
use crate::psn::Psn;
use crate::syndrome::Aeth;

/// The partition that every port is a full member of.
pub const DEFAULT_PARTITION: u16 = 0xffff;

/// Bits of [`BthWire`].
const SOLICITED: u8 = 1 << 7;
const MIGRATED: u8 = 1 << 6;
const PAD_SHIFT: u8 = 4;
const VERSION: u8 = 0x0f;
const FECN: u32 = 1 << 31;
const BECN: u32 = 1 << 30;
const ACK_REQUEST: u32 = 1 << 31;

/// All that a packet says besides its payload. Of the extended headers, those that its opcode does not call for are
/// zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it asks for or answers.
    pub opcode: Opcode,
    /// Number of the queue pair it goes to, 24 bits.
    pub dest_qpn: u32,
    /// Its sequence number.
    pub psn: Psn,
    /// P_Key.
    pub partition: u16,
    /// Solicited event: the completion of the message counts for a completion queue armed for such ones.
    pub solicited: bool,
    /// Migration state. Set by hardware that does not migrate.
    pub migrated: bool,
    /// An acknowledgement is wanted.
    pub ack_request: bool,
    /// A router on the way was congested.
    pub fecn: bool,
    /// A router on the way of the other direction was congested.
    pub becn: bool,
    /// Q_Key and source, of a datagram.
    pub deth: Deth,
    /// What to flush.
    pub feth: Feth,
    /// Where to write, read or flush.
    pub reth: Reth,
    /// What to do atomically.
    pub atomic: AtomicEth,
    /// How the responder got on.
    pub aeth: Aeth,
    /// The value before the atomic operation.
    pub original: u64,
    /// Immediate data, as the program gave it.
    pub immediate: [u8; 4],
    /// R_Key to invalidate.
    pub invalidate: u32,
}

impl Packet {
    /// A packet with headers of zeros, in the default partition.
    #[must_use]
    pub fn new(opcode: Opcode, dest_qpn: u32, psn: Psn) -> Self {
        Self {
            opcode,
            dest_qpn: dest_qpn & LOW_24,
            psn,
            partition: DEFAULT_PARTITION,
            solicited: false,
            migrated: true,
            ack_request: false,
            fecn: false,
            becn: false,
            deth: Deth::default(),
            feth: Feth::default(),
            reth: Reth::default(),
            atomic: AtomicEth::default(),
            aeth: Aeth::default(),
            original: 0,
            immediate: [0; 4],
            invalidate: 0,
        }
    }

    /// Bytes of its headers.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        size_of::<BthWire>() + self.opcode.headers().bytes()
    }

    /// Appends its headers; `pad` bytes, 0 to 3, will follow the payload.
    pub(crate) fn write(&self, pad: u8, to: &mut Vec<u8>) {
        let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        let flags = if self.solicited { SOLICITED } else { 0 } | if self.migrated { MIGRATED } else { 0 };
        let base = BthWire {
            opcode: self.opcode.to_byte(),
            flags: flags | pad << PAD_SHIFT,
            partition: self.partition.into(),
            destination: (bit(self.fecn, FECN) | bit(self.becn, BECN) | self.dest_qpn & LOW_24).into(),
            psn: (bit(self.ack_request, ACK_REQUEST) | self.psn.get()).into(),
        };
        to.extend_from_slice(base.as_bytes());
        let headers = self.opcode.headers();
        let mut put = |header, bytes: &[u8]| {
            if headers.has(header) {
                to.extend_from_slice(bytes);
            }
        };
        put(Headers::DETH, DethWire::from(self.deth).as_bytes());
        put(Headers::FETH, FethWire::from(self.feth).as_bytes());
        put(Headers::RETH, RethWire::from(self.reth).as_bytes());
        put(Headers::ATOMIC, AtomicWire::from(self.atomic).as_bytes());
        put(Headers::AETH, AethWire::from(self.aeth).as_bytes());
        put(Headers::ORIGINAL, U64::from(self.original).as_bytes());
        put(Headers::IMMEDIATE, &self.immediate);
        put(Headers::INVALIDATE, U32::from(self.invalidate).as_bytes());
        put(Headers::CONGESTION, &[0; 16]);
    }

    /// Reads the headers at the start of `bytes`, which end before the ICRC. Returns the packet and its payload, without
    /// padding.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), Dropped> {
        let mut rest = bytes;
        let base: BthWire = take(&mut rest)?;
        if base.flags & VERSION != 0 {
            return Err(Dropped::Version(base.flags & VERSION));
        }
        let opcode = Opcode::from_byte(base.opcode).ok_or(Dropped::Opcode(base.opcode))?;
        let (destination, psn) = (base.destination.get(), base.psn.get());
        let mut packet = Self {
            partition: base.partition.get(),
            solicited: base.flags & SOLICITED != 0,
            migrated: base.flags & MIGRATED != 0,
            ack_request: psn & ACK_REQUEST != 0,
            fecn: destination & FECN != 0,
            becn: destination & BECN != 0,
            ..Self::new(opcode, destination, Psn::new(psn))
        };
        packet.read_extensions(&mut rest)?;
        let pad = usize::from(base.flags >> PAD_SHIFT & 3);
        let length = rest.len().checked_sub(pad).ok_or(Dropped::Short)?;
        Ok((packet, &rest[..length]))
    }

    fn read_extensions(&mut self, rest: &mut &[u8]) -> Result<(), Dropped> {
        let headers = self.opcode.headers();
        if headers.has(Headers::DETH) {
            self.deth = take::<DethWire>(rest)?.into();
        }
        if headers.has(Headers::FETH) {
            self.feth = take::<FethWire>(rest)?.into();
        }
        if headers.has(Headers::RETH) {
            self.reth = take::<RethWire>(rest)?.into();
        }
        if headers.has(Headers::ATOMIC) {
            self.atomic = take::<AtomicWire>(rest)?.into();
        }
        if headers.has(Headers::AETH) {
            self.aeth = take::<AethWire>(rest)?.into();
        }
        if headers.has(Headers::ORIGINAL) {
            self.original = take::<U64>(rest)?.get();
        }
        if headers.has(Headers::IMMEDIATE) {
            self.immediate = take(rest)?;
        }
        if headers.has(Headers::INVALIDATE) {
            self.invalidate = take::<U32>(rest)?.get();
        }
        if headers.has(Headers::CONGESTION) {
            take::<[u8; 16]>(rest)?;
        }
        Ok(())
    }
}
