//! The configuration side of one function.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use refault_bus::irq::MsiSink;
use refault_bus::sync::lock;

use crate::caps::{CapabilityId, ats, express, msix, pasid, power, pri};
use crate::identity::{COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY};
use crate::space::{ConfigSpace, DwordWrite};
use crate::{Bar, ConfigEffect, Controls, MsixLayout, MsixTable};

/// The configuration side of one function. All methods may be called from any thread.
pub struct Endpoint {
    bars: Vec<Bar>,
    places: CapabilityPlaces,
    /// The bits of [`Controls`] after the last write, for readers that take no lock.
    controls: Arc<AtomicU32>,
    msix: Option<MsixTable>,
    state: Mutex<ConfigState>,
}

/// The state behind the lock.
struct ConfigState {
    space: ConfigSpace,
    /// Page requests are outstanding: a disabled interface is not yet stopped.
    pri_busy: bool,
}

/// First dword of each capability that holds switches; `None` if the function lacks the capability.
#[derive(Clone, Copy, Debug, Default)]
struct CapabilityPlaces {
    express: Option<usize>,
    msix: Option<usize>,
    power: Option<usize>,
    ats: Option<usize>,
    pri: Option<usize>,
    pasid: Option<usize>,
}

impl Endpoint {
    pub(crate) fn new(
        space: ConfigSpace,
        bars: Vec<Bar>,
        capabilities: Vec<(CapabilityId, usize)>,
        msix: Option<(MsixLayout, Arc<dyn MsiSink>)>,
    ) -> Self {
        let controls = Arc::new(AtomicU32::new(0));
        let msix = msix.map(|(layout, sink)| MsixTable::new(layout, sink, controls.clone()));
        let state = Mutex::new(ConfigState { space, pri_busy: false });
        Self { bars, places: CapabilityPlaces::new(&capabilities), controls, msix, state }
    }

    /// Fills `data` from config space. Bytes past its end read as ones.
    pub fn config_read(&self, offset: u16, data: &mut [u8]) {
        lock(&self.state).space.read(offset, data);
    }

    /// Writes `data` into config space and sends the interrupts that this enables. Bits that are not writable stay as
    /// they are. The caller must act on the returned effect, as [`crate::PciFunction::config_write`] does.
    pub fn config_write(&self, offset: u16, data: &[u8]) -> ConfigEffect {
        let mut state = lock(&self.state);
        let before = self.controls();
        let mut effect = ConfigEffect { before, ..ConfigEffect::default() };
        let mut dwords = Vec::with_capacity(2);
        state.space.write(offset, data, |written| dwords.push(written));
        for written in dwords {
            self.written(&mut state, written, &mut effect);
        }
        effect.after = self.places.controls(&state.space);
        effect.bars_moved |= before.memory_space() != effect.after.memory_space();
        // Before deliver_pending, which loads them: see `MsixTable::controls`.
        self.controls.store(effect.after.0, Ordering::Release);
        drop(state);
        if let Some(msix) = &self.msix {
            msix.deliver_pending();
        }
        effect
    }

    /// The switches, read without a lock.
    pub fn controls(&self) -> Controls {
        Controls(self.controls.load(Ordering::Acquire))
    }

    /// The BARs, in the order in which they were added.
    pub fn bars(&self) -> &[Bar] {
        &self.bars
    }

    /// The addresses that BAR `index` decodes; `None` if there is no such BAR, or memory space is off.
    pub fn bar(&self, index: u8) -> Option<Range<u64>> {
        let bar = self.bars.iter().find(|bar| bar.index == index)?;
        let state = lock(&self.state);
        if self.controls().memory_space() { bar.range(&state.space) } else { None }
    }

    /// The MSI-X table, if the function has one.
    pub fn msix(&self) -> Option<&MsixTable> {
        self.msix.as_ref()
    }

    /// Raises an MSI-X vector; see [`MsixTable::notify`].
    pub fn notify(&self, vector: u16) {
        if let Some(msix) = &self.msix {
            msix.notify(vector);
        }
    }

    /// Number of page requests that the operating system allows the function to have outstanding.
    pub fn pri_allocation(&self) -> u32 {
        self.places.pri.map_or(0, |at| lock(&self.state).space.value(at + pri::ALLOCATION))
    }

    /// Sets whether page requests are outstanding. While they are, a disabled interface does not read as stopped
    /// (PCIe 6.0, 10.5.2.3).
    pub fn set_pri_busy(&self, busy: bool) {
        let mut state = lock(&self.state);
        state.pri_busy = busy;
        self.update_stopped(&mut state);
    }

    /// Sets the Response Failure status: a page response said that the operating system failed.
    pub fn set_pri_response_failure(&self) {
        self.set_pri_status(pri::RESPONSE_FAILURE);
    }

    /// Sets the Unexpected Page Request Group Index status: a page response named a group that was not open.
    pub fn set_pri_unexpected_group(&self) {
        self.set_pri_status(pri::UNEXPECTED_GROUP);
    }

    /// Whether Response Failure is set. Until the guest clears it, no page request may be sent.
    pub fn pri_response_failure(&self) -> bool {
        let failed = |at| lock(&self.state).space.value(at + pri::CONTROL) & pri::RESPONSE_FAILURE != 0;
        self.places.pri.is_some_and(failed)
    }

    /// Resets everything that a guest can write: BARs, switches, vectors.
    pub fn reset(&self) {
        let mut state = lock(&self.state);
        state.space.reset();
        state.pri_busy = false;
        self.controls.store(0, Ordering::Release);
        drop(state);
        if let Some(msix) = &self.msix {
            msix.reset();
        }
    }

    /// Performs the side effects of a write to one dword.
    fn written(&self, state: &mut ConfigState, written: DwordWrite, effect: &mut ConfigEffect) {
        let CapabilityPlaces { express, power, pri, .. } = self.places;
        let is = |capability: Option<usize>, dword| capability.map(|at| at + dword) == Some(written.index);
        if is(express, express::DEVICE_CONTROL) && written.bits & express::INITIATE_RESET != 0 {
            effect.function_reset = true;
        }
        let power_state = state.space.value(written.index) & power::STATE;
        if is(power, power::CONTROL) && (power_state == 1 || power_state == 2) {
            state.space.assign(written.index, power::STATE, written.before);
        }
        if is(pri, pri::CONTROL) {
            self.pri_written(state, written, effect);
        }
        if self.bars.iter().any(|bar| (bar.dword()..bar.dword() + 2).contains(&written.index)) {
            effect.bars_moved |= effect.before.memory_space();
        }
    }

    fn pri_written(&self, state: &mut ConfigState, written: DwordWrite, effect: &mut ConfigEffect) {
        let enabled = state.space.value(written.index) & pri::ENABLE != 0;
        if enabled && written.before & pri::ENABLE == 0 {
            let flags = pri::RESPONSE_FAILURE | pri::UNEXPECTED_GROUP;
            state.space.assign(written.index, flags, 0);
        }
        if !enabled && written.bits & pri::RESET != 0 {
            effect.pri_reset = true;
            state.pri_busy = false;
        }
        self.update_stopped(state);
    }

    fn update_stopped(&self, state: &mut ConfigState) {
        let Some(at) = self.places.pri.map(|at| at + pri::CONTROL) else { return };
        let enabled = state.space.value(at) & pri::ENABLE != 0;
        let stopped = if enabled || state.pri_busy { 0 } else { pri::STOPPED };
        state.space.assign(at, pri::STOPPED, stopped);
    }

    fn set_pri_status(&self, bits: u32) {
        if let Some(at) = self.places.pri {
            lock(&self.state).space.assign(at + pri::CONTROL, bits, bits);
        }
    }
}

impl CapabilityPlaces {
    fn new(capabilities: &[(CapabilityId, usize)]) -> Self {
        let place = |wanted| capabilities.iter().find(|(id, _)| *id == wanted).map(|&(_, at)| at);
        Self {
            express: place(express::ID),
            msix: place(msix::ID),
            power: place(power::ID),
            ats: place(ats::ID),
            pri: place(pri::ID),
            pasid: place(pasid::ID),
        }
    }

    /// The switches according to the registers. In D3hot a function neither decodes nor issues anything.
    fn controls(&self, space: &ConfigSpace) -> Controls {
        let command = space.value(COMMAND);
        let awake = !on(space, self.power, power::CONTROL, power::STATE);
        let mut bits = 0;
        let mut switch = |condition: bool, bit: u32| bits |= if condition { bit } else { 0 };
        switch(awake && command & COMMAND_MEMORY != 0, Controls::MEMORY_SPACE);
        switch(awake && command & COMMAND_BUS_MASTER != 0, Controls::BUS_MASTER);
        switch(on(space, self.ats, ats::CONTROL, ats::ENABLE), Controls::ATS);
        switch(on(space, self.pri, pri::CONTROL, pri::ENABLE), Controls::PRI);
        switch(on(space, self.pasid, pasid::CONTROL, pasid::ENABLE), Controls::PASID);
        switch(on(space, self.msix, 0, msix::ENABLE), Controls::MSIX_ENABLED);
        switch(on(space, self.msix, 0, msix::FUNCTION_MASK), Controls::MSIX_MASKED);
        Controls(bits)
    }
}

/// Whether the function has the capability, and any bit of `mask` is set in its dword.
fn on(space: &ConfigSpace, capability: Option<usize>, dword: usize, mask: u32) -> bool {
    capability.is_some_and(|at| space.value(at + dword) & mask != 0)
}
