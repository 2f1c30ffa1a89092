//! The register page: reads of registers, and the effects of writes.
//!
//! Software must use naturally aligned accesses of 4 or 8 bytes (§11.2). A read of any other shape returns the bytes of
//! the registers that it covers; a write of any other shape is ignored. A register of 64 bits is read and written as a
//! whole by an access of 8 bytes: page requests go to the queue that PQA names while it is being moved.

use refault_bus::bits::{low_u8, low_u32};
use refault_bus::mmio::MmioDevice;
use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::sync::lock;
use refault_bus::{AddressSpace, Iova};

use crate::caps::{CAP, ECAP, FAULT_RECORDS, VERSION};
use crate::control::Control;
use crate::spec::registers::{
    FaultStatus, GlobalCommand, PageRequestStatus, RootTableAddress, offset as reg,
};
use crate::unit::{Iommu, REGISTER_WINDOW};

/// Bit 63 of CCMD (ICC) and IOTLB (IVT): starts an invalidation, and is clear again when it is complete.
const START: u64 = 1 << 63;

/// A register that invalidates: CCMD or IOTLB.
#[derive(Clone, Copy)]
struct Invalidator {
    register: fn(&mut Control) -> &mut u64,
    /// The field with the granularity that software requests; zero is reserved.
    requested: u64,
    /// The field with that at which the invalidation was performed; zero if it was not.
    performed: u64,
    /// The value of that field for a global one.
    global: u64,
}

/// CCMD: CIRG is bits 62:61, CAIG bits 60:59.
const CCMD: Invalidator = Invalidator {
    register: |control| &mut control.context_command,
    requested: 0b11 << 61,
    performed: 0b11 << 59,
    global: 1 << 59,
};

/// IOTLB: IIRG is bits 61:60, IAIG bits 58:57.
const IOTLB: Invalidator = Invalidator {
    register: |control| &mut control.iotlb_command,
    requested: 0b11 << 60,
    performed: 0b11 << 57,
    global: 1 << 57,
};

/// The registers as quadwords. A register of 32 bits is half of one, and named by the offset of its quadword here.
mod quad {
    use super::{FAULT_RECORDS, reg};

    pub(super) const VERSION: u64 = reg::VERSION;
    pub(super) const COMMAND_AND_STATUS: u64 = reg::GCMD;
    pub(super) const FSTS: u64 = reg::FSTS - 4;
    pub(super) const ICS: u64 = reg::ICS - 4;
    pub(super) const PRS: u64 = reg::PRS - 4;

    /// End of an event block: control, data, address and upper address, 32 bits each.
    pub(super) const FECTL_END: u64 = reg::FECTL + 16;
    pub(super) const IECTL_END: u64 = reg::IECTL + 16;
    pub(super) const PECTL_END: u64 = reg::PECTL + 16;
    pub(super) const FRCD_END: u64 = reg::FRCD + FAULT_RECORDS as u64 * 16;
}

/// A write to a quadword: all of it, or one half.
#[derive(Clone, Copy)]
struct Written {
    value: u64,
    /// The bits that are written; the others are zero in `value`.
    mask: u64,
}

impl Written {
    /// The register after the write.
    const fn into(self, register: u64) -> u64 {
        register & !self.mask | self.value
    }

    /// The lower half, if it is written.
    fn low(self) -> Option<u32> {
        (low_u32(self.mask) != 0).then_some(low_u32(self.value))
    }

    /// The upper half, if it is written.
    fn high(self) -> Option<u32> {
        Self { value: self.value >> 32, mask: self.mask >> 32 }.low()
    }

    /// Both halves that are written, each with the offset of its first byte in the quadword.
    fn halves(self) -> impl Iterator<Item = (u64, u32)> {
        let (low, high) = (self.low().map(|value| (0, value)), self.high().map(|value| (4, value)));
        low.into_iter().chain(high)
    }
}

impl MmioDevice for Iommu {
    fn reset(&self) {
        Self::reset(self);
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut quad = [0; 8];
        for (index, byte) in (0u64..).zip(data.iter_mut()) {
            let at = offset.wrapping_add(index);
            let in_quad = usize::from(low_u8(at) % 8);
            if index == 0 || in_quad == 0 {
                quad = self.read_quad(at & !7).to_le_bytes();
            }
            *byte = quad[in_quad];
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let written = match *data {
            [a, b, c, d] => {
                let shift = offset % 8 * 8;
                let value = u64::from(u32::from_le_bytes([a, b, c, d]));
                Some(Written { value: value << shift, mask: u64::from(u32::MAX) << shift })
            }
            [a, b, c, d, e, f, g, h] => {
                let value = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
                Some(Written { value, mask: u64::MAX })
            }
            _ => None,
        };
        match written.filter(|_| offset.is_multiple_of(data.len() as u64) && offset < REGISTER_WINDOW) {
            Some(written) => self.write_quad(offset & !7, written),
            None => {
                if let Some(count) = self.warnings.access.admit() {
                    tracing::warn!(
                        count,
                        "ignored a write of {} bytes at IOMMU register {offset:#x}",
                        data.len()
                    );
                }
            }
        }
    }
}

impl Iommu {
    /// The quadword at `at`, which is aligned; zero where there is no register.
    fn read_quad(&self, at: u64) -> u64 {
        let upper = |value: u32| u64::from(value) << 32;
        match at {
            quad::VERSION => u64::from(VERSION),
            reg::CAP => CAP.into_bits(),
            reg::ECAP => ECAP.into_bits(),
            quad::COMMAND_AND_STATUS => upper(self.global_status().into_bits()),
            reg::RTADDR => lock(&self.control).root,
            reg::CCMD => lock(&self.control).context_command,
            quad::FSTS => upper(lock(&self.faults).status().into_bits()),
            reg::FECTL..quad::FECTL_END => lock(&self.faults).event.read(at - reg::FECTL),
            reg::IQH => u64::from(self.queue.head()),
            reg::IQT => u64::from(self.queue.tail()),
            reg::IQA => self.queue.address(),
            quad::ICS => upper(u32::from(lock(&self.completion).is_complete())),
            reg::IECTL..quad::IECTL_END => lock(&self.completion).event.read(at - reg::IECTL),
            reg::IQERCD => lock(&self.faults).queue_error().into_bits(),
            reg::PQH => self.page_requests.lock().head(),
            reg::PQT => self.page_requests.lock().tail(),
            reg::PQA => self.page_requests.lock().address(),
            quad::PRS => upper(self.page_requests.lock().status().into_bits()),
            reg::PECTL..quad::PECTL_END => self.page_requests.lock().event.read(at - reg::PECTL),
            reg::IOTLB => lock(&self.control).iotlb_command,
            reg::FRCD..quad::FRCD_END => lock(&self.faults).read_record(at - reg::FRCD),
            _ => 0,
        }
    }

    /// Writes the quadword at `at`, which is aligned, or half of it.
    fn write_quad(&self, at: u64, written: Written) {
        match at {
            quad::COMMAND_AND_STATUS => {
                if let Some(command) = written.low() {
                    self.command(GlobalCommand::from_bits(command));
                }
            }
            reg::RTADDR => {
                let mut control = lock(&self.control);
                control.root = written.into(control.root);
            }
            reg::CCMD => self.invalidate_by_register(written, CCMD, || self.flush_contexts(None)),
            quad::FSTS => {
                if let Some(status) = written.high() {
                    let resumed = lock(&self.faults).clear_status(FaultStatus::from_bits(status));
                    if resumed {
                        self.resume_queue();
                    }
                }
            }
            reg::FECTL..quad::FECTL_END => {
                let mut faults = lock(&self.faults);
                written.halves().for_each(|(half, value)| {
                    faults.event.write(at - reg::FECTL + half, value, &*self.msi);
                });
            }
            reg::IQT => {
                if let Some(tail) = written.low() {
                    self.set_queue_tail(tail);
                }
            }
            reg::IQA => self.queue.update_address(|address| written.into(address)),
            quad::ICS => {
                if let Some(status) = written.high() {
                    lock(&self.completion).clear(status);
                }
            }
            reg::IECTL..quad::IECTL_END => {
                let mut completion = lock(&self.completion);
                written.halves().for_each(|(half, value)| {
                    completion.event.write(at - reg::IECTL + half, value, &*self.msi);
                });
            }
            reg::PQH..quad::PECTL_END => self.write_page_requests(at, written),
            reg::IOTLB => self.invalidate_by_register(written, IOTLB, || self.flush_domain(None)),
            reg::FRCD..quad::FRCD_END => {
                let mut faults = lock(&self.faults);
                written.halves().for_each(|(half, value)| faults.write_record(at - reg::FRCD + half, value));
            }
            _ => {}
        }
    }

    /// Writes CCMD or IOTLB. If that starts an invalidation, performs a global one, whatever was requested.
    fn invalidate_by_register(&self, written: Written, invalidator: Invalidator, flush: impl Fn()) {
        let Invalidator { register, requested, performed, global } = invalidator;
        let _one_at_a_time = lock(&self.queue.ring);
        let update = |change: &dyn Fn(u64) -> u64| {
            let mut control = lock(&self.control);
            let register = register(&mut control);
            *register = change(*register);
            *register
        };
        let command = update(&|old| written.into(old) & !performed);
        if command & START == 0 {
            return;
        }
        let is_reserved = command & requested == 0;
        if !is_reserved {
            flush();
        }
        update(&|old| old & !START | if is_reserved { 0 } else { global });
    }

    /// Writes a quadword of the registers from PQH to PEUADDR, or half of it.
    fn write_page_requests(&self, at: u64, written: Written) {
        let mut queue = self.page_requests.lock();
        match at {
            reg::PQH => {
                let head = written.into(queue.head());
                queue.set_head(head);
            }
            reg::PQT => {
                let tail = written.into(queue.tail());
                queue.set_tail(tail);
            }
            reg::PQA => {
                let address = written.into(queue.address());
                queue.set_address(address);
            }
            quad::PRS => {
                if let Some(status) = written.high() {
                    queue.clear_status(PageRequestStatus::from_bits(status));
                }
            }
            reg::PECTL.. => written.halves().for_each(|(half, value)| {
                if queue.event.write(at - reg::PECTL + half, value, &*self.msi) {
                    self.note_latched_page_request();
                }
            }),
            _ => {}
        }
    }

    /// Reports the page request event that an unmask has sent. Which requests raised it is not known.
    fn note_latched_page_request(&self) {
        self.counters.page_request_interrupts.increment();
        self.probe.record(&ProbeEvent::new(Stage::Interrupt, AddressSpace::Function, Iova(0)));
    }

    /// The value of GSTS.
    fn global_status(&self) -> GlobalCommand {
        let control = lock(&self.control);
        GlobalCommand::new()
            .with_te(control.enabled)
            .with_srtp(control.root_set)
            .with_qie(self.queue.is_enabled())
    }

    /// Performs a command written to GCMD. It is complete on return, and GSTS shows it from when all accesses through the
    /// old tables have landed (§11.4.4.1). No other command or invalidation is performed meanwhile.
    ///
    /// The root table pointer is set with translation, which must not be turned on with the old tables. The queue is last:
    /// enabling it may execute descriptors.
    fn command(&self, command: GlobalCommand) {
        let mut ring = lock(&self.queue.ring);
        let control = *lock(&self.control);
        if command.srtp() || command.te() != control.enabled {
            let root = command.srtp().then(|| RootTableAddress::from_bits(control.root));
            self.remapping.interrupt(|tables| tables.configure(root, command.te()));
            self.empty_devices(|_| true);
            let mut control = lock(&self.control);
            control.root_set |= command.srtp();
            control.enabled = command.te();
        }
        // With translation off, faults are recorded from the first record on again (§7.2.1).
        if !command.te() {
            lock(&self.faults).rewind();
        }
        if command.qie() != self.queue.is_enabled() {
            self.enable_queue(&mut ring, command.qie());
        }
    }
}
