//! How a machine ends, and how to request it: the guest through a few ports, the host through a handle.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use refault_bus::mmio::MmioDevice;
use refault_bus::sync::lock;
use tracing::debug;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::config::ExitReason;

/// Port of the ACPI sleep control register; the sleep status register is the next port.
pub const SLEEP_PORT: u16 = 0x600;
/// The sleep type that the guest writes to power off: the first element of `\_S5`.
pub const SLEEP_TYPE_OFF: u8 = 5;
/// Port of the reset control register, which is also in the FADT.
pub const RESET_PORT: u16 = 0xcf9;
/// Value of the reset control register that resets everything.
pub const RESET_VALUE: u8 = 0x06;
/// Command port of the keyboard controller.
pub const KEYBOARD_PORT: u16 = 0x64;

/// Port from which a kernel reads the reason for an NMI.
pub const NMI_REASON_PORT: u16 = 0x61;

/// The end of a machine: the first reason counts.
pub struct Exit {
    reason: OnceLock<ExitReason>,
    event: EventFd,
}

impl Exit {
    /// The state of a machine that has not ended.
    ///
    /// # Errors
    /// The host has no file descriptor left for an event.
    pub fn new() -> io::Result<Self> {
        Ok(Self { reason: OnceLock::new(), event: EventFd::new(EFD_NONBLOCK)? })
    }

    /// Ends the machine for `reason`, unless it has ended already.
    pub fn request(&self, reason: ExitReason) {
        debug!(?reason, "the machine ends");
        if self.reason.set(reason).is_ok() {
            // Fails only when the counter is at its maximum, and then the event is pending anyway.
            let _ = self.event.write(1);
        }
    }

    /// Whether the machine has ended.
    pub fn is_requested(&self) -> bool {
        self.reason.get().is_some()
    }

    /// The reason for the end, once there is one.
    pub fn reason(&self) -> Option<ExitReason> {
        self.reason.get().cloned()
    }

    /// Runs the control loop on this thread until the machine ends, and returns the reason.
    ///
    /// # Errors
    /// The host cannot wait for events.
    pub fn wait(self: &Arc<Self>) -> Result<ExitReason, event_manager::Error> {
        let mut manager = EventManager::new()?;
        manager.add_subscriber(ExitWatcher(self.clone()));
        loop {
            if let Some(reason) = self.reason() {
                return Ok(reason);
            }
            manager.run()?;
        }
    }
}

/// Wakes the control loop at the end.
struct ExitWatcher(Arc<Exit>);

impl MutEventSubscriber for ExitWatcher {
    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        // An error means that the event was consumed elsewhere; only the reason matters.
        let _ = self.0.event.read();
    }

    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&self.0.event, EventSet::IN)) {
            let text = format!("cannot watch for the end of the machine: {error}");
            self.0.request(ExitReason::Failed(text));
        }
    }
}

/// ACPI's sleep control and status registers (ACPI 6.5, 4.8.3.7).
pub struct SleepControl(pub Arc<Exit>);

impl MmioDevice for SleepControl {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        const ENABLE: u8 = 1 << 5;
        const TYPE_SHIFT: u8 = 2;
        if offset == 0 && data.first() == Some(&(ENABLE | SLEEP_TYPE_OFF << TYPE_SHIFT)) {
            self.0.request(ExitReason::PowerOff);
        }
    }
}

/// The chipset's reset control register.
pub struct ResetControl {
    exit: Arc<Exit>,
    value: Mutex<u8>,
}

impl ResetControl {
    /// The register of the machine that `exit` ends.
    pub fn new(exit: Arc<Exit>) -> Self {
        Self { exit, value: Mutex::new(0) }
    }
}

impl MmioDevice for ResetControl {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(*lock(&self.value));
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        const RESET_CPU: u8 = 1 << 2;
        let Some(&value) = data.first() else { return };
        *lock(&self.value) = value;
        if value & RESET_CPU != 0 {
            self.exit.request(ExitReason::Reset);
        }
    }
}

/// The keyboard controller's reset function. There is no keyboard.
pub struct KeyboardController(pub Arc<Exit>);

impl MmioDevice for KeyboardController {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        // Both buffers are empty: a guest that polls them before it resets continues at once.
        data.fill(0);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        const PULSE_RESET: u8 = 0xfe;
        if data.first() == Some(&PULSE_RESET) {
            self.0.request(ExitReason::Reset);
        }
    }
}

/// The port with the reasons for NMIs, of which there are none. Without it Linux would take our NMIs for memory or bus
/// errors, rather than unknown ones.
pub struct NmiReason;

impl MmioDevice for NmiReason {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        // Neither a memory parity nor a bus error; all other bits, such as a timer's output, read as without the port.
        const MEMORY: u8 = 1 << 7;
        const BUS: u8 = 1 << 6;
        data.fill(!(MEMORY | BUS));
    }

    fn write(&self, _offset: u64, _data: &[u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended_by(device: impl FnOnce(Arc<Exit>)) -> Option<ExitReason> {
        let exit = Arc::new(Exit::new().unwrap());
        device(exit.clone());
        exit.reason()
    }

    #[test]
    fn sleep_type_off_powers_off_and_no_other_does() {
        assert_eq!(ended_by(|exit| SleepControl(exit).write(0, &[0x34])), Some(ExitReason::PowerOff));
        for byte in [0x14, 0x20, 0x2c, 0xff, 0] {
            assert_eq!(ended_by(|exit| SleepControl(exit).write(0, &[byte])), None);
        }
        assert_eq!(ended_by(|exit| SleepControl(exit).write(1, &[0x34])), None);
    }

    #[test]
    fn both_reset_ports_reset() {
        let chipset = |value| ended_by(|exit| ResetControl::new(exit).write(0, &[value]));
        assert_eq!(chipset(RESET_VALUE), Some(ExitReason::Reset));
        assert_eq!(chipset(0x02), None, "only the kind of reset was chosen");
        assert_eq!(ended_by(|exit| KeyboardController(exit).write(0, &[0xfe])), Some(ExitReason::Reset));
        assert_eq!(ended_by(|exit| KeyboardController(exit).write(0, &[0xd1])), None);
    }

    #[test]
    fn an_nmi_has_no_hardware_reason() {
        let mut data = [0];
        NmiReason.read(0, &mut data);
        assert_eq!(data[0] & 0xc0, 0);
    }

    #[test]
    fn the_first_reason_counts() {
        let exit = Arc::new(Exit::new().unwrap());
        exit.request(ExitReason::PowerOff);
        exit.request(ExitReason::Stopped);
        assert_eq!(exit.wait().unwrap(), ExitReason::PowerOff);
    }

    #[test]
    fn waiting_ends_when_another_thread_asks() {
        let exit = Arc::new(Exit::new().unwrap());
        let other = exit.clone();
        let thread = std::thread::spawn(move || other.request(ExitReason::Stopped));
        assert_eq!(exit.wait().unwrap(), ExitReason::Stopped);
        thread.join().unwrap();
    }
}
