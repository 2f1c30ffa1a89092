//! The register page: reads of registers, and the effects of writes.
//!
//! Registers are accessed in 32-bit words. Software must use naturally aligned accesses of 4 or 8 bytes (§11.2). A read
//! of any other shape returns the bytes of the words that it covers; a write of any other shape is ignored.

use refault_bus::bits::{low_u8, low_u32};
use refault_bus::irq::MsiMessage;
use refault_bus::mmio::MmioDevice;
use refault_bus::probe::{ProbeEvent, Stage};
use refault_bus::sync::lock;
use refault_bus::{AddressSpace, Iova};

use crate::caps::{CAP, ECAP, VERSION};
use crate::spec::registers::{
    FaultStatus, GlobalCommand, PageRequestStatus, RootTableAddress, offset as reg,
};
use crate::unit::{Iommu, REGISTER_WINDOW};

/// Bit 63 of CCMD (ICC) and IOTLB (IVT), here of the upper word: starts an invalidation, which is complete when the
/// write returns. So the bit always reads as zero.
const START: u32 = 1 << 31;

/// CCMD as read: the last invalidation was performed as a global one (CAIG, bits 60:59).
const CCMD_DONE: u64 = 1 << 59;

/// IOTLB as read: the last invalidation was performed as a global one (IAIG, bits 58:57).
const IOTLB_DONE: u64 = 1 << 57;

/// First byte after each register or block of more than one 32-bit word, by the name of its first.
mod end {
    use super::reg;
    use crate::caps::FAULT_RECORDS;

    pub(super) const CAP: u64 = reg::CAP + 8;
    pub(super) const ECAP: u64 = reg::ECAP + 8;
    pub(super) const RTADDR: u64 = reg::RTADDR + 8;
    pub(super) const CCMD: u64 = reg::CCMD + 8;
    pub(super) const FECTL: u64 = reg::FECTL + EVENT_BLOCK_BYTES;
    pub(super) const IQA: u64 = reg::IQA + 8;
    pub(super) const IECTL: u64 = reg::IECTL + EVENT_BLOCK_BYTES;
    pub(super) const IQERCD: u64 = reg::IQERCD + 8;
    pub(super) const PQH: u64 = reg::PQH + 8;
    pub(super) const PQT: u64 = reg::PQT + 8;
    pub(super) const PQA: u64 = reg::PQA + 8;
    pub(super) const PECTL: u64 = reg::PECTL + EVENT_BLOCK_BYTES;
    pub(super) const IOTLB: u64 = reg::IOTLB + 8;
    pub(super) const FRCD: u64 = reg::FRCD + FAULT_RECORDS as u64 * 16;

    /// An event block: control, data, address and upper address, 32 bits each.
    const EVENT_BLOCK_BYTES: u64 = 16;
}

impl MmioDevice for Iommu {
    fn reset(&self) {
        Self::reset(self);
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut word = [0; 4];
        for (index, byte) in (0u64..).zip(data.iter_mut()) {
            let at = offset.wrapping_add(index);
            let in_word = usize::from(low_u8(at) % 4);
            if index == 0 || in_word == 0 {
                word = self.read_word(at & !3).to_le_bytes();
            }
            *byte = word[in_word];
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (words, rest) = data.as_chunks::<4>();
        let shape_fits = matches!(data.len(), 4 | 8) && rest.is_empty();
        if !shape_fits || !offset.is_multiple_of(data.len() as u64) || offset >= REGISTER_WINDOW {
            if let Some(count) = self.warnings.access.admit() {
                tracing::warn!(
                    count,
                    "ignored a write of {} bytes at IOMMU register {offset:#x}",
                    data.len()
                );
            }
            return;
        }
        for (at, word) in (offset..).step_by(4).zip(words) {
            self.write_word(at, u32::from_le_bytes(*word));
        }
    }
}

impl Iommu {
    /// The 32-bit word at `at`, which is aligned; zero where there is no register.
    fn read_word(&self, at: u64) -> u32 {
        let wide = |base: u64, value: u64| low_u32(value >> ((at - base) * 8));
        match at {
            reg::VERSION => VERSION,
            reg::CAP..end::CAP => wide(reg::CAP, CAP.into_bits()),
            reg::ECAP..end::ECAP => wide(reg::ECAP, ECAP.into_bits()),
            reg::GSTS => self.global_status().into_bits(),
            reg::RTADDR..end::RTADDR => wide(reg::RTADDR, lock(&self.control).root),
            reg::CCMD..end::CCMD => wide(reg::CCMD, CCMD_DONE),
            reg::FSTS => lock(&self.faults).status().into_bits(),
            reg::FECTL..end::FECTL => lock(&self.faults).event.read(at - reg::FECTL),
            reg::IQH => self.queue.head(),
            reg::IQT => self.queue.tail(),
            reg::IQA..end::IQA => wide(reg::IQA, self.queue.address()),
            reg::ICS => u32::from(lock(&self.completion).is_complete()),
            reg::IECTL..end::IECTL => lock(&self.completion).event.read(at - reg::IECTL),
            reg::IQERCD..end::IQERCD => wide(reg::IQERCD, lock(&self.faults).queue_error().into_bits()),
            reg::PQH..end::PQH => wide(reg::PQH, lock(&self.page_requests).head()),
            reg::PQT..end::PQT => wide(reg::PQT, lock(&self.page_requests).tail()),
            reg::PQA..end::PQA => wide(reg::PQA, lock(&self.page_requests).address()),
            reg::PRS => lock(&self.page_requests).status().into_bits(),
            reg::PECTL..end::PECTL => lock(&self.page_requests).event.read(at - reg::PECTL),
            reg::IOTLB..end::IOTLB => wide(reg::IOTLB, IOTLB_DONE),
            reg::FRCD..end::FRCD => lock(&self.faults).read_record(at - reg::FRCD),
            _ => 0,
        }
    }

    /// Writes the 32-bit word at `at`, which is aligned. A 64-bit write comes as two, the lower word first, so that the
    /// command bit in the upper word of CCMD and IOTLB takes effect last.
    fn write_word(&self, at: u64, value: u32) {
        match at {
            reg::GCMD => self.command(GlobalCommand::from_bits(value)),
            reg::RTADDR..end::RTADDR => {
                let mut control = lock(&self.control);
                control.root = replace_half(control.root, at - reg::RTADDR, value);
            }
            reg::CCMD_HI if value & START != 0 => lock(&self.remapping).flush_contexts(None),
            reg::FSTS => {
                let resumed = lock(&self.faults).clear_status(FaultStatus::from_bits(value));
                if resumed {
                    self.resume_queue();
                }
            }
            reg::FECTL..end::FECTL => {
                let message = lock(&self.faults).event.write(at - reg::FECTL, value);
                self.signal(message);
            }
            reg::IQT => self.set_queue_tail(value),
            reg::IQA..end::IQA => {
                self.queue.set_address(replace_half(self.queue.address(), at - reg::IQA, value));
            }
            reg::ICS => lock(&self.completion).clear(value),
            reg::IECTL..end::IECTL => {
                let message = lock(&self.completion).event.write(at - reg::IECTL, value);
                self.signal(message);
            }
            reg::PQH..end::PECTL => self.write_page_requests(at, value),
            reg::IOTLB_HI if value & START != 0 => self.flush_domain(None),
            reg::FRCD..end::FRCD => lock(&self.faults).write_record(at - reg::FRCD, value),
            _ => {}
        }
    }

    /// Writes a word of the registers from PQH to PEUADDR.
    fn write_page_requests(&self, at: u64, value: u32) {
        let mut queue = lock(&self.page_requests);
        match at {
            reg::PQH => queue.set_head(u64::from(value)),
            reg::PQT => queue.set_tail(u64::from(value)),
            reg::PQA..end::PQA => {
                let address = replace_half(queue.address(), at - reg::PQA, value);
                queue.set_address(address);
            }
            reg::PRS => queue.clear_status(PageRequestStatus::from_bits(value)),
            reg::PECTL.. => {
                let message = queue.event.write(at - reg::PECTL, value);
                drop(queue);
                self.signal_latched_page_request(message);
            }
            _ => {}
        }
    }

    /// Sends the page request event that an unmask released, and reports it. Which requests raised it is not known.
    fn signal_latched_page_request(&self, message: Option<MsiMessage>) {
        if message.is_some() {
            self.counters.page_request_interrupts.increment();
            self.signal(message);
            self.probe.record(&ProbeEvent::new(Stage::Interrupt, AddressSpace::Function, Iova(0)));
        }
    }

    /// The value of GSTS.
    fn global_status(&self) -> GlobalCommand {
        let control = lock(&self.control);
        GlobalCommand::new()
            .with_te(control.enabled)
            .with_srtp(control.root_set)
            .with_qie(self.queue.is_enabled())
    }

    /// Performs a command written to GCMD. It is complete on return, so the next read of GSTS shows it.
    ///
    /// The root table pointer first: translation must not be turned on with the old tables. The queue last and without
    /// the control lock: enabling it may execute descriptors, which wait for devices.
    fn command(&self, command: GlobalCommand) {
        {
            let mut control = lock(&self.control);
            if command.srtp() {
                lock(&self.remapping).set_root(RootTableAddress::from_bits(control.root));
                control.root_set = true;
            }
            if command.te() != control.enabled {
                control.enabled = command.te();
                lock(&self.remapping).set_enabled(command.te());
            }
        }
        // With translation off, the next fault goes to the first record again (§7.2.1).
        if !command.te() {
            lock(&self.faults).rewind();
        }
        if command.qie() != self.queue.is_enabled() {
            self.enable_queue(command.qie());
        }
    }
}

/// `old` with the 32-bit word at byte `offset` (0 or 4) replaced.
const fn replace_half(old: u64, offset: u64, value: u32) -> u64 {
    let shift = offset * 8;
    (old & !(0xffff_ffff << shift)) | ((value as u64) << shift)
}
