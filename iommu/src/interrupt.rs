//! An event register block: control, data, address, upper address. The unit has three: for faults (FECTL), invalidation
//! completions (IECTL) and page requests (PECTL).

use refault_bus::irq::MsiMessage;

use crate::spec::registers::EventControl;

/// An event with its mask and pending bit (§7.3, §7.5). An event that is raised while masked stays pending, and is sent
/// when software unmasks it. The message is read from the registers only then, because Linux rewrites them while an
/// event is pending, to move its interrupt to another CPU.
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
    /// Raises the event. Returns the message to send, or `None` while masked.
    pub(crate) fn raise(&mut self) -> Option<MsiMessage> {
        self.control.set_pending(true);
        self.send()
    }

    /// Software has serviced all conditions: clears the pending bit, because there is nothing left to announce.
    pub(crate) fn serviced(&mut self) {
        self.control.set_pending(false);
    }

    /// Reads the register at byte `offset` of the block.
    pub(crate) fn read(&self, offset: u64) -> u32 {
        match offset {
            0x0 => self.control.into_bits(),
            0x4 => self.data,
            0x8 => self.address,
            0xc => self.upper_address,
            _ => 0,
        }
    }

    /// Writes the register at byte `offset` of the block. Returns the message to send, if this unmasks a pending event.
    pub(crate) fn write(&mut self, offset: u64, value: u32) -> Option<MsiMessage> {
        match offset {
            0x0 => {
                self.control.set_mask(EventControl::from_bits(value).mask());
                return self.send();
            }
            0x4 => self.data = value,
            0x8 => self.address = value & !3,
            0xc => self.upper_address = value,
            _ => {}
        }
        None
    }

    fn send(&mut self) -> Option<MsiMessage> {
        if !self.control.pending() || self.control.mask() {
            return None;
        }
        self.control.set_pending(false);
        let address = u64::from(self.upper_address) << 32 | u64::from(self.address);
        Some(MsiMessage { address, data: self.data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programmed() -> EventRegisters {
        let mut event = EventRegisters::default();
        event.write(4, 0x4022);
        event.write(8, 0xfee0_1004);
        event
    }

    #[test]
    fn an_event_is_masked_after_reset() {
        let event = EventRegisters::default();
        assert_eq!([0, 4, 8, 12].map(|offset| event.read(offset)), [0x8000_0000, 0, 0, 0]);
    }

    #[test]
    fn a_masked_event_is_latched_and_sent_once_on_unmask() {
        let mut event = programmed();
        assert_eq!(event.raise(), None);
        assert_eq!(event.read(0), 0xc000_0000);
        assert_eq!(event.write(0, 0), Some(MsiMessage { address: 0xfee0_1004, data: 0x4022 }));
        assert_eq!(event.read(0), 0);
        assert_eq!(event.write(0, 0), None);
    }

    #[test]
    fn an_event_serviced_while_masked_is_not_sent() {
        let mut event = programmed();
        event.raise();
        event.serviced();
        assert_eq!(event.write(0, 0), None);
    }

    #[test]
    fn the_message_is_the_one_programmed_when_it_is_sent() {
        let mut event = programmed();
        event.raise();
        event.write(4, 0x4033);
        event.write(12, 0x100);
        assert_eq!(event.write(0, 0), Some(MsiMessage { address: 0x100_fee0_1004, data: 0x4033 }));
    }
}
