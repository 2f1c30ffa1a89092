//! One guest from its plan to its end.

use std::sync::mpsc::{Sender, sync_channel};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};

use super::any_machine::{AnyMachine, answer, feed, resize};
use super::collect;
use super::options::parse::Out;
use super::output::{ANSWERS, Ends, GuestStatus, INPUT_WINDOW, Outputs, PortState, ending};
use super::plan::MachinePlan;
use super::watchdog::{RunEvent, Watchdog};
use super::{RunEnd, Spec, Streams};
use refault_guest::relay::{Credit, Frame};
use refault_machine::config::{ExitReason, PmemConfig};
use refault_machine::memory::pmem;
use refault_machine::{Devices, MachineHandle, MachineParts};
use refault_os::stop::{GracefulStop, StopSignal};

/// Runs a guest to its end, as planned. `devices` builds the devices on its PCI bus.
///
/// # Errors
/// The guest cannot be built, a stream breaks, or a requested file cannot be brought out. A command that fails and a
/// guest that crashes are not errors: see [`RunEnd`].
pub(super) fn run(
    spec: &Spec,
    plan: &MachinePlan,
    streams: Streams,
    devices: impl FnOnce(&MachineParts) -> Result<Devices>,
) -> Result<RunEnd> {
    let handle = Arc::new(OnceLock::new());
    let stopped = Arc::new(OnceLock::new());
    let state = Arc::<PortState>::default();
    let Streams { input, sizes, output, errors, log, control } = streams;
    let sizes = sizes.map(|start| start()).transpose().context("cannot watch the terminal")?;
    let outputs = Outputs::new(output, errors, log, control, &state, &handle);
    let ends = outputs.ends();
    let _orderly = end_on_signal(&handle, &stopped, &ends)?;
    let credit = Arc::new(Credit::new(INPUT_WINDOW));
    let (watch, events) = Watchdog::new(spec.timeout);
    let (answers, answered) = sync_channel(ANSWERS);
    let consoles = match plan.relayed {
        true => outputs.relayed(&state, &credit, &handle, plan.token.clone(), answers, notifier(&events)),
        false => outputs.plain(&state, &handle),
    };
    let machine = AnyMachine::new(spec, plan.config.clone(), consoles, devices)?;
    let hand = handle.get_or_init(|| machine.handle()).clone();
    input.into_iter().for_each(|input| feed(input, hand.clone(), Arc::clone(&credit), plan.relayed));
    answer(answered, hand.clone());
    sizes.into_iter().for_each(|sizes| resize(sizes, hand.clone(), Arc::clone(&credit)));
    if stopped.get().is_some() {
        // The signal came before there was a machine to stop.
        hand.stop();
    }
    let (late, asked) = (ends.clone(), hand.clone());
    let ask = move || asked.inject(1, &Frame::Report.encode());
    let watching = watch.start(hand, ask, move || late.limit_waits());
    let reason = machine.run();
    ends.finish();
    let _ = events.send(RunEvent::MachineEnded);
    credit.close();
    let timed_out = watching.join().unwrap_or(false);
    let status = state.status().clone();
    if let Some(why) = &status.broken {
        bail!("{why}");
    }
    let end = RunEnd {
        stopped: stopped.get().copied(),
        status: status.exit,
        reason: explained(reason?, &plan.config.pmem),
        timeout: spec.timeout.filter(|_| timed_out),
        bare: !plan.relayed || spec.shell,
        log: state.log(),
        findings: state.findings(),
    };
    if end.status.is_some() {
        bring_out(plan, &spec.out, &status)?;
    }
    Ok(end)
}

/// Ends the guest when a signal asks us to stop, as long as the result lives.
fn end_on_signal(
    handle: &Arc<OnceLock<MachineHandle>>,
    stopped: &Arc<OnceLock<StopSignal>>,
    ends: &Ends,
) -> Result<GracefulStop> {
    let (handle, stopped, ends) = (Arc::clone(handle), Arc::clone(stopped), ends.clone());
    let end = move |stop| {
        let _ = stopped.set(stop);
        ending(&handle, ExitReason::Stopped)();
        ends.limit_waits();
    };
    GracefulStop::begin(end).context("cannot hold signals back")
}

/// Passes the guest's events to the watchdog, which may have ended.
fn notifier(events: &Sender<RunEvent>) -> impl Fn(RunEvent) + Send + use<> {
    let events = events.clone();
    move |event| {
        let _ = events.send(event);
    }
}

/// The reason, with the cause added if the machine failed because a file behind its memory was lost: the machine only
/// knows that an access failed.
fn explained(reason: ExitReason, pmem: &[PmemConfig]) -> ExitReason {
    match reason {
        ExitReason::Failed(what) => ExitReason::Failed(match pmem::lost(pmem) {
            Some(why) => format!("{why} ({what})"),
            None => what,
        }),
        other => other,
    }
}

fn bring_out(plan: &MachinePlan, requested: &[Out], status: &GuestStatus) -> Result<()> {
    let Some(results) = plan.results() else { return Ok(()) };
    let unpacked = collect::unpack(results, requested);
    if status.collect_failed && unpacked.is_ok() {
        bail!("the guest could not collect all files; is there enough room (--out-size)?");
    }
    unpacked.with_context(|| match status.collect_failed {
        true => {
            "the guest could not collect all files; do they exist, and is there enough room (--out-size)?"
        }
        false => "files could not be brought out",
    })
}
