//! An event register block: control, data, address, upper address. The unit has three: for faults (FECTL), invalidation
//! completions (IECTL) and page requests (PECTL).

use refault_bus::irq::{MsiMessage, MsiSink};

use crate::spec::registers::EventControl;

/// An event with its mask and pending bit (§7.3, §7.5). An event that is raised while masked stays pending, and is sent
/// when software unmasks it. The message is read from the registers only then, because Linux rewrites them while an
/// event is pending, to move its interrupt to another CPU.
///
/// The message is sent by the call that clears the pending bit, under the lock of the registers. So once software has
/// masked the event and read the mask back, no message with the old address is still to come.
#[derive(Debug)]
pub(crate) struct EventRegisters {
    control: EventControl,
    data: u32,
    address: u32,
    upper_address: u32,
}

impl Default for EventRegisters {
    /// The state after reset: masked.
    fn default() -> Self {
        Self { control: EventControl::new().with_mask(true), data: 0, address: 0, upper_address: 0 }
    }
}

impl EventRegisters {
    /// Raises the event: sends its message, or leaves it pending while masked. Returns whether it was sent.
    pub(crate) fn raise(&mut self, msi: &dyn MsiSink) -> bool {
        self.control.set_pending(true);
        self.send(msi)
    }

    /// Software has serviced all conditions: clears the pending bit, because there is nothing left to announce.
    pub(crate) fn serviced(&mut self) {
        self.control.set_pending(false);
    }

    /// Reads the two registers at byte `offset` of the block, which is 0 or 8.
    pub(crate) fn read(&self, offset: u64) -> u64 {
        let (low, high) = match offset {
            0x0 => (self.control.into_bits(), self.data),
            0x8 => (self.address, self.upper_address),
            _ => (0, 0),
        };
        u64::from(high) << 32 | u64::from(low)
    }

    /// Writes the register at byte `offset` of the block. Returns whether this unmasked a pending event, which is sent.
    pub(crate) fn write(&mut self, offset: u64, value: u32, msi: &dyn MsiSink) -> bool {
        match offset {
            0x0 => {
                self.control.set_mask(EventControl::from_bits(value).mask());
                return self.send(msi);
            }
            0x4 => self.data = value,
            0x8 => self.address = value & !3,
            0xc => self.upper_address = value,
            _ => {}
        }
        false
    }

    fn send(&mut self, msi: &dyn MsiSink) -> bool {
        if !self.control.pending() || self.control.mask() {
            return false;
        }
        self.control.set_pending(false);
        let address = u64::from(self.upper_address) << 32 | u64::from(self.address);
        msi.signal(MsiMessage { address, data: self.data });
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// The messages sent.
    #[derive(Default)]
    struct Sent(Mutex<Vec<MsiMessage>>);

    impl MsiSink for Sent {
        fn signal(&self, message: MsiMessage) {
            self.0.lock().unwrap().push(message);
        }
    }

    impl Sent {
        fn take(&self) -> Vec<MsiMessage> {
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    fn programmed() -> (EventRegisters, Sent) {
        let (mut event, sent) = (EventRegisters::default(), Sent::default());
        event.write(4, 0x4022, &sent);
        event.write(8, 0xfee0_1004, &sent);
        (event, sent)
    }

    #[test]
    fn an_event_is_masked_after_reset() {
        let event = EventRegisters::default();
        assert_eq!([0, 8].map(|offset| event.read(offset)), [0x8000_0000, 0]);
    }

    #[test]
    fn a_masked_event_is_latched_and_sent_once_on_unmask() {
        let (mut event, sent) = programmed();
        assert!(!event.raise(&sent));
        assert_eq!(event.read(0), 0x4022_c000_0000);
        assert!(event.write(0, 0, &sent));
        assert_eq!(sent.take(), [MsiMessage { address: 0xfee0_1004, data: 0x4022 }]);
        assert_eq!(event.read(0), 0x4022_0000_0000);
        assert!(!event.write(0, 0, &sent) && sent.take().is_empty());
    }

    #[test]
    fn an_event_serviced_while_masked_is_not_sent() {
        let (mut event, sent) = programmed();
        event.raise(&sent);
        event.serviced();
        assert!(!event.write(0, 0, &sent) && sent.take().is_empty());
    }

    #[test]
    fn the_message_is_the_one_programmed_when_it_is_sent() {
        let (mut event, sent) = programmed();
        event.raise(&sent);
        event.write(4, 0x4033, &sent);
        event.write(12, 0x100, &sent);
        event.write(0, 0, &sent);
        assert_eq!(sent.take(), [MsiMessage { address: 0x100_fee0_1004, data: 0x4033 }]);
    }
}
