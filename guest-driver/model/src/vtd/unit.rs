//! An IOMMU from power-on to shutdown, in the order of `init_dmars`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use refault_bus::pri::ResponseCode;

use crate::interrupts::MSI_ADDRESS;
use crate::registers::RegisterWindow;
use crate::vtd::context::RootTable;
use crate::vtd::registers as reg;
use crate::vtd::{
    Answer, Descriptor, Function, FunctionSetup, InvalidationQueue, PageRequestQueue, PrimaryFault,
    QueuedRequest, fault_log,
};
use crate::{GuestMemory, ModelError, Pause};

/// RTADDR.TTM: a scalable-mode root table.
const SCALABLE: u64 = 1 << 10;
/// CAP.ESRTPS: setting the root table pointer also flushes all caches.
const FLUSHES_ON_ROOT: u64 = 1 << 63;

/// Arguments of [`RemappingUnit::bring_up`].
#[derive(Clone)]
pub struct RemappingUnitSetup {
    /// Register window of the IOMMU.
    pub registers: RegisterWindow,
    /// Memory to allocate tables and rings from.
    pub memory: Arc<GuestMemory>,
    /// How to wait for the IOMMU.
    pub pause: Pause,
    /// Interrupt vector of fault events.
    pub fault_vector: u8,
    /// Interrupt vector of page request events.
    pub page_request_vector: u8,
    /// log2 of the pages of the page request queue; Linux uses 4.
    pub page_request_order: u8,
}

/// The driver of an initialised IOMMU.
pub struct RemappingUnit {
    pub(crate) setup: RemappingUnitSetup,
    /// The driver's side of the invalidation queue.
    pub queue: InvalidationQueue,
    /// The driver's side of the page request queue.
    pub page_requests: PageRequestQueue,
    pub(crate) contexts: RootTable,
    /// The GCMD bits that are enabled: every write must repeat them.
    command: AtomicU32,
}

impl RemappingUnit {
    /// Initialises the IOMMU up to, but not including, translation: invalidation queue, root table, page request queue,
    /// fault event. If it is translating, it is stopped first. The next steps are [`Self::probe`] and
    /// [`Self::enable_translation`].
    ///
    /// # Errors
    ///
    /// [`ModelError::MissingCapability`]; [`ModelError::OutOfMemory`]; [`ModelError::Stuck`] on a timeout.
    pub fn bring_up(setup: RemappingUnitSetup) -> Result<Arc<Self>, ModelError> {
        let registers = &setup.registers;
        let missing = |needed: &&reg::Needed| registers.read64(reg::ECAP) >> needed.bit & 1 == 0;
        if let Some(needed) = reg::NEEDED.iter().find(missing) {
            return Err(ModelError::MissingCapability(needed.name));
        }
        stop_if_running(&setup)?;
        fault_log::drain(registers);
        let queue = InvalidationQueue::new(registers.clone(), setup.memory.clone(), setup.pause.clone())?;
        let command = AtomicU32::new(0);
        level(&setup, &command, reg::QUEUED_INVALIDATION, true)?;
        let contexts = RootTable::new(setup.memory.clone())?;
        registers.write64(reg::RTADDR, contexts.root.0 | SCALABLE);
        registers.write32(reg::GCMD, command.load(Ordering::Relaxed) | reg::ROOT_TABLE);
        await_status(&setup, reg::ROOT_TABLE, true)?;
        if registers.read64(reg::CAP) & FLUSHES_ON_ROOT == 0 {
            for flush in [Descriptor::contexts(), Descriptor::pasid_cache(), Descriptor::iotlb()] {
                queue.submit(&[flush], false)?;
            }
        }
        set_event(registers, reg::PECTL, setup.page_request_vector);
        let page_requests =
            PageRequestQueue::new(registers.clone(), setup.memory.clone(), setup.page_request_order)?;
        set_event(registers, reg::FECTL, setup.fault_vector);
        Ok(Arc::new(Self { setup, queue, page_requests, contexts, command }))
    }

    /// Creates the context entry and PASID directory of a function.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutOfMemory`].
    pub fn probe(self: &Arc<Self>, setup: FunctionSetup) -> Result<Arc<Function>, ModelError> {
        Function::new(self.clone(), setup)
    }

    /// Enables translation.
    ///
    /// # Errors
    ///
    /// [`ModelError::Stuck`] on a timeout.
    pub fn enable_translation(&self) -> Result<(), ModelError> {
        level(&self.setup, &self.command, reg::TRANSLATION, true)
    }

    /// Disables translation and leaves everything else, as `intel_iommu_shutdown` does.
    ///
    /// # Errors
    ///
    /// [`ModelError::Stuck`] on a timeout.
    pub fn shut_down(&self) -> Result<(), ModelError> {
        level(&self.setup, &self.command, reg::TRANSLATION, false)
    }

    /// One run of the page request thread. Refuses malformed requests, ignores stop markers, and passes all others to
    /// `handle`. Returns the number of entries.
    ///
    /// # Errors
    ///
    /// As [`Self::respond`].
    pub fn service_page_requests(
        &self,
        mut handle: impl FnMut(&QueuedRequest) -> Answer,
    ) -> Result<usize, ModelError> {
        self.page_requests.service(|request| {
            let answer = if request.is_malformed() {
                Answer::Now(ResponseCode::InvalidRequest)
            } else if request.is_stop_marker() {
                Answer::Later
            } else {
                handle(request)
            };
            match answer {
                Answer::Now(code) if request.last => self.respond(request, code),
                _ => Ok(()),
            }
        })
    }

    /// Sends the page group response for the group of `request`.
    ///
    /// # Errors
    ///
    /// As [`InvalidationQueue::submit`].
    pub fn respond(&self, request: &QueuedRequest, code: ResponseCode) -> Result<(), ModelError> {
        let QueuedRequest { requester, pasid, group, .. } = *request;
        self.queue.submit(&[Descriptor::page_group_response(requester, pasid, group, code)], false)
    }

    /// Takes the recorded faults. Also returns whether faults were lost.
    pub fn take_faults(&self) -> (Vec<PrimaryFault>, bool) {
        fault_log::drain(&self.setup.registers)
    }

    /// Register window of the IOMMU.
    pub fn registers(&self) -> &RegisterWindow {
        &self.setup.registers
    }
}

/// Disables translation and queued invalidation that are still on, after a kexec or a warm reset.
fn stop_if_running(setup: &RemappingUnitSetup) -> Result<(), ModelError> {
    let status = setup.registers.read32(reg::GSTS);
    let command = AtomicU32::new(status & (reg::TRANSLATION | reg::QUEUED_INVALIDATION));
    for bit in [reg::TRANSLATION, reg::QUEUED_INVALIDATION] {
        if status & bit != 0 {
            level(setup, &command, bit, false)?;
        }
    }
    Ok(())
}

/// Sets or clears one bit of GCMD and waits for GSTS to follow.
fn level(setup: &RemappingUnitSetup, command: &AtomicU32, bit: u32, on: bool) -> Result<(), ModelError> {
    let value = if on {
        command.fetch_or(bit, Ordering::Relaxed) | bit
    } else {
        command.fetch_and(!bit, Ordering::Relaxed) & !bit
    };
    setup.registers.write32(reg::GCMD, value);
    await_status(setup, bit, on)
}

fn await_status(setup: &RemappingUnitSetup, bit: u32, on: bool) -> Result<(), ModelError> {
    setup.pause.until("the global status register", || {
        let is_on = setup.registers.read32(reg::GSTS) & bit != 0;
        Ok((is_on == on).then_some(()))
    })
}

/// Programs the message of an event and unmasks it. The read flushes the posted writes.
fn set_event(registers: &RegisterWindow, control: u64, vector: u8) {
    registers.write32(control + 4, u32::from(vector));
    registers.write32(control + 8, MSI_ADDRESS);
    registers.write32(control + 12, 0);
    registers.write32(control, 0);
    registers.read32(control);
}
