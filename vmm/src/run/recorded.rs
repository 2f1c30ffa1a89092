//! A guest whose devices are in this process, and the recording of their faults.

use std::sync::Arc;

use anyhow::Result;
use refault_bus::probe::{NoProbe, Probe};
use refault_iommu::{Iommu, IommuConfig};
use refault_nic::{Nic, NicConfig, NicStats};

use super::device_records::DeviceRecords;
use super::lifecycle::run;
use super::plan::MachinePlan;
use super::sandbox::enter;
use super::stages::Stages;
use super::{RunEnd, Spec, Streams};
use crate::devices;
use refault_observe::report::TimeBase;
use refault_observe::trace::Recorder;
use refault_os::scratch::Scratch;
use refault_rig::cable::{CableCounters, CableOptions};
use refault_rig::clock::WallClock;
use refault_rig::delays::NamedTiming;
use refault_rig::wiring::{DeviceOptions, Wired};

/// A run before its guest is started.
pub(crate) struct RecordedRun {
    clock: Arc<WallClock>,
    recorder: Option<Arc<Recorder>>,
    stages: Option<Stages>,
    iommu: IommuConfig,
    nic: NicConfig,
    more_nics: Vec<NicConfig>,
    cables: CableOptions,
    timing: Option<NamedTiming>,
}

/// A run whose guest has ended.
pub(crate) struct FinishedRun {
    end: RunEnd,
    recorder: Option<Arc<Recorder>>,
    stages: Option<Stages>,
    timing: Option<NamedTiming>,
    time: TimeBase,
    devices: Option<(Arc<Nic>, Arc<Iommu>)>,
    more_nics: Vec<Arc<Nic>>,
    cables: Vec<CableCounters>,
    _scratch: Option<Scratch>,
}

impl RecordedRun {
    /// A run with these devices, which does not record yet.
    pub(crate) fn new(iommu: IommuConfig, nic: NicConfig, timing: Option<NamedTiming>) -> Self {
        Self {
            clock: Arc::new(WallClock::new()),
            recorder: None,
            stages: None,
            iommu,
            nic,
            more_nics: Vec::new(),
            cables: CableOptions::default(),
            timing,
        }
    }

    /// The same with more NICs, of which those on Ethernet are joined by `cables`.
    pub(crate) fn with_ports(self, more_nics: Vec<NicConfig>, cables: CableOptions) -> Self {
        Self { more_nics, cables, ..self }
    }

    /// Records the faults, with the NIC's clock.
    pub(crate) fn record(&mut self) -> Arc<Recorder> {
        let recorder = Recorder::new(self.clock.clone(), Recorder::DEFAULT_BOUND);
        self.recorder.insert(recorder).clone()
    }

    /// Adds the guest's own account of its fault handling to the records.
    ///
    /// # Errors
    /// As [`Stages::request`].
    pub(crate) fn request_stages(&mut self, spec: &mut Spec) -> Result<()> {
        self.stages = Some(Stages::request(spec)?);
        Ok(())
    }

    /// Runs the guest to its end, in the sandbox if the specification says so: this process stays in it.
    ///
    /// # Errors
    /// The machine or the devices cannot be built, or as [`run`].
    pub(crate) fn run(self, spec: &Spec, streams: Streams) -> Result<FinishedRun> {
        let Self { clock, recorder, stages, iommu, nic, more_nics, cables, timing } = self;
        let probe: Arc<dyn Probe> = match &recorder {
            Some(recorder) => recorder.clone(),
            None => Arc::new(NoProbe),
        };
        let delays = timing.as_ref().map(|named| named.timing.clone());
        let options = DeviceOptions { iommu, nic, more_nics, cables, clock, probe, timing: delays };
        let plan = MachinePlan::new(spec)?;
        let scratch = enter(spec, &plan.config)?;
        let mut wired = None;
        let end = run(spec, &plan, streams, |parts| {
            let (devices, keep) = devices::build(parts, options)?;
            wired = Some(keep);
            Ok(devices)
        });
        if let Some(wired) = &mut wired {
            wired.cables.end();
        }
        let cables = wired.as_ref().map(|wired| wired.cables.counters()).unwrap_or_default();
        let more_nics = wired.as_ref().map(|wired| wired.more_nics.clone()).unwrap_or_default();
        // Ends the NIC's threads, before the records are taken.
        let devices = wired.map(|wired: Wired| (wired.nic.clone(), wired.iommu.clone()));
        Ok(FinishedRun {
            end: end?,
            recorder,
            stages,
            timing,
            time: spec.backend.time(),
            devices,
            more_nics,
            cables,
            _scratch: scratch,
        })
    }
}

impl FinishedRun {
    /// What has passed the links.
    pub(crate) fn cables(&self) -> &[CableCounters] {
        &self.cables
    }

    /// Counters of the NICs behind the first one.
    pub(crate) fn more_nics(&self) -> Vec<NicStats> {
        self.more_nics.iter().map(|nic| nic.stats()).collect()
    }

    /// How the guest ended, and the records of its devices' faults, if they were recorded.
    ///
    /// # Errors
    /// As [`DeviceRecords::take`].
    pub(crate) fn take_records(self) -> Result<(RunEnd, Option<DeviceRecords>)> {
        let Self { end, recorder, stages, timing, time, devices, _scratch, .. } = self;
        let (Some(recorder), Some((nic, iommu))) = (recorder, devices) else { return Ok((end, None)) };
        let records = DeviceRecords::take((&nic, &iommu), &recorder, stages.as_ref(), timing, time)?;
        Ok((end, Some(records)))
    }
}
