//! BAR 2: one 4 KiB doorbell page per context. The only register is a 64-bit write at offset 0.
//!
//! A send doorbell carries no index: the producer index lies in the queue pair's doorbell record, so its
//! value is the same every time and a machine can attach an ioeventfd to (page, value).

constants! { DOORBELLS, "Doorbell values: kind 63:56, object number 55:32, argument 31:0":
    /// Send work was posted to queue pair `number`; argument 0.
    pub const DOORBELL_SQ: u64 = 1;
    /// Notify on the next completion of completion queue `number`; argument: consumer index.
    pub const DOORBELL_CQ_ARM: u64 = 2;
    /// Notify on the next solicited or failed completion; argument: consumer index.
    pub const DOORBELL_CQ_ARM_SOLICITED: u64 = 3;
    /// Shift of the kind.
    pub const DOORBELL_KIND_SHIFT: u32 = 56;
    /// Shift of the object number.
    pub const DOORBELL_NUMBER_SHIFT: u32 = 32;
}

/// A decoded doorbell write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbell {
    /// One of the `DOORBELL_*` kinds, or anything a guest made up.
    pub kind: u8,
    /// QPN or CQN, 24 bits.
    pub number: u32,
    /// Argument of the kind.
    pub argument: u32,
}

impl Doorbell {
    /// Splits a written value.
    pub const fn decode(value: u64) -> Self {
        Self {
            kind: (value >> DOORBELL_KIND_SHIFT) as u8,
            number: (value >> DOORBELL_NUMBER_SHIFT) as u32 & 0xff_ffff,
            argument: value as u32,
        }
    }

    /// The value to write.
    pub const fn encode(self) -> u64 {
        (self.kind as u64) << DOORBELL_KIND_SHIFT
            | ((self.number & 0xff_ffff) as u64) << DOORBELL_NUMBER_SHIFT
            | self.argument as u64
    }
}
