/// ACK extended header (IBTA volume 1, §9.7.5.1.1): how the responder got on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aeth {
    /// Acknowledged, or why not.
    pub syndrome: Syndrome,
    /// Message sequence number, 24 bits: messages that the responder has completed.
    pub msn: u32,
}

/// The first byte of an [`Aeth`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syndrome {
    /// Everything up to this packet was received. Holds the coded credits, 0 to 31; 31 means that credits are not used.
    Ack(u8),
    /// The receiver is not ready: repeat after the time that this code, 0 to 31, stands for.
    ReceiverNotReady(u8),
    /// Refused.
    Nak(Nak),
    /// Reserved. The low seven bits.
    Reserved(u8),
}

impl Syndrome {
    /// An acknowledgement without credits.
    pub const ACK: Self = Self::Ack(NO_CREDITS);

    pub(crate) const fn from_byte(byte: u8) -> Self {
        match (byte & TYPE, byte & VALUE) {
            (ACK, value) => Self::Ack(value),
            (RNR, value) => Self::ReceiverNotReady(value),
            (NAK, 0) => Self::Nak(Nak::Sequence),
            (NAK, 1) => Self::Nak(Nak::InvalidRequest),
            (NAK, 2) => Self::Nak(Nak::RemoteAccess),
            (NAK, 3) => Self::Nak(Nak::RemoteOperation),
            _ => Self::Reserved(byte & 0x7f),
        }
    }

    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Self::Ack(credits) => credits & VALUE,
            Self::ReceiverNotReady(timer) => RNR | timer & VALUE,
            Self::Nak(nak) => NAK | nak as u8,
            Self::Reserved(bits) => bits & 0x7f,
        }
    }
}

impl Default for Syndrome {
    fn default() -> Self {
        Self::from_byte(0)
    }
}

/// Why a request was refused (table 45).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nak {
    /// A packet before this one is missing: repeat from the one that this bears the number of.
    Sequence = 0,
    /// The responder does not know or take such a request, or its length is wrong.
    InvalidRequest = 1,
    /// The key, the addresses or the rights are wrong.
    RemoteAccess = 2,
    /// The responder failed.
    RemoteOperation = 3,
}

/// Delays of receiver-not-ready NAKs in units of 10 us, by code (§9.7.5.2.8, table 45).
const DELAYS: [u32; 32] = [
    65_536, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
    3072, 4096, 6144, 8192, 12_288, 16_384, 24_576, 32_768, 49_152,
];

/// Nanoseconds that the code of [`Syndrome::ReceiverNotReady`] stands for. Only its low five bits count.
#[must_use]
pub fn rnr_delay_ns(code: u8) -> u64 {
    u64::from(DELAYS[usize::from(code & VALUE)]) * 10_000
}

/// Bits 6:5 of a syndrome; bit 7 is reserved.
const TYPE: u8 = 0x60;
const ACK: u8 = 0x00;
const RNR: u8 = 0x20;
const NAK: u8 = 0x60;
/// Bits 4:0.
const VALUE: u8 = 0x1f;
const NO_CREDITS: u8 = 0x1f;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_kept_but_for_the_reserved_bit() {
        for byte in 0..=u8::MAX {
            assert_eq!(Syndrome::from_byte(byte).to_byte(), byte & 0x7f);
        }
    }

    #[test]
    fn the_receiver_not_ready_delays_are_those_of_the_specification() {
        assert_eq!(rnr_delay_ns(0), 655_360_000);
        assert_eq!(rnr_delay_ns(1), 10_000);
        assert_eq!(rnr_delay_ns(12), 640_000);
        assert_eq!(rnr_delay_ns(31), 491_520_000);
    }

    #[test]
    fn codes_are_those_of_the_specification() {
        let bytes = [
            Syndrome::ACK,
            Syndrome::ReceiverNotReady(12),
            Syndrome::Nak(Nak::Sequence),
            Syndrome::Nak(Nak::InvalidRequest),
            Syndrome::Nak(Nak::RemoteAccess),
            Syndrome::Nak(Nak::RemoteOperation),
        ];
        assert_eq!(bytes.map(Syndrome::to_byte), [0x1f, 0x2c, 0x60, 0x61, 0x62, 0x63]);
        assert_eq!(Syndrome::from_byte(0x40), Syndrome::Reserved(0x40));
        assert_eq!(Syndrome::from_byte(0x65), Syndrome::Reserved(0x65));
    }
}
