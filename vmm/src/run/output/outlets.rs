//! Where the guest's serial ports write, and waiting until all is written.

use std::io::Write;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};

use super::console::{ControlPort, LogPort, PortState, StreamPort};
use crate::run::ControlListener;
use crate::run::watchdog::RunEvent;
use refault_guest::relay::{Credit, Decoder};
use refault_machine::config::ExitReason;
use refault_machine::{Consoles, MachineHandle};
use refault_os::message;
use refault_os::output_queue::OutputQueue;

/// The outlets of a run. A reader that stalls blocks the guest, and nothing else.
pub(crate) struct Outputs {
    output: OutputQueue,
    errors: OutputQueue,
    log: Vec<OutputQueue>,
    control: ControlListener,
}

/// Handles to the outlets, for any thread.
#[derive(Clone)]
pub(crate) struct Ends(Vec<OutputQueue>);

impl Ends {
    /// From now on no writer waits for a reader, because the run is to end.
    pub(crate) fn limit_waits(&self) {
        self.0.iter().for_each(OutputQueue::limit_waits);
        message::limit_waits();
    }

    /// Waits until everything is written, or cannot be.
    pub(crate) fn finish(&self) {
        for outlet in &self.0 {
            outlet.finish();
        }
    }
}

impl Outputs {
    /// Outlets for the run's streams. One that cannot be written ends the run, and leaves the reason in `state`.
    pub(crate) fn new(
        output: Box<dyn Write + Send>,
        errors: Box<dyn Write + Send>,
        log: Vec<Box<dyn Write + Send>>,
        control: ControlListener,
        state: &Arc<PortState>,
        handle: &Arc<OnceLock<MachineHandle>>,
    ) -> Self {
        let outlet = |to, what: &'static str| {
            let (state, stop) = (Arc::clone(state), ending(handle, ExitReason::Stopped));
            OutputQueue::new(to, move |error| {
                state.status().broken.get_or_insert_with(|| format!("{what} cannot be written: {error}"));
                stop();
            })
        };
        Self {
            output: outlet(output, "the command's output"),
            errors: outlet(errors, "the command's output"),
            log: log.into_iter().map(|copy| outlet(copy, "the kernel's log")).collect(),
            control,
        }
    }

    /// Handles to the outlets, which the machine takes.
    pub(crate) fn ends(&self) -> Ends {
        Ends(self.log.iter().chain([&self.output, &self.errors]).cloned().collect())
    }

    /// Consoles of a guest with our init: log, streams, control lines. `answers` takes the lines to send back.
    pub(crate) fn relayed(
        self,
        state: &Arc<PortState>,
        credit: &Arc<Credit>,
        handle: &Arc<OnceLock<MachineHandle>>,
        token: String,
        answers: SyncSender<String>,
        notify: impl Fn(RunEvent) + Send + 'static,
    ) -> Consoles {
        let streams = StreamPort {
            state: Arc::clone(state),
            decoder: Decoder::default(),
            credit: Arc::clone(credit),
            output: Box::new(self.output),
            errors: Box::new(self.errors),
            stop: ending(handle, ExitReason::Stopped),
        };
        let control = ControlPort {
            state: Arc::clone(state),
            line: Vec::new(),
            credit: Arc::clone(credit),
            listener: self.control,
            answers,
            token,
            notify: Box::new(notify),
        };
        let log = LogPort::new(state, self.log, ending(handle, ExitReason::Halted));
        Consoles { outputs: [Box::new(log), Box::new(streams), Box::new(control)] }
    }

    /// Consoles of a guest with the user's own init: the console only.
    pub(crate) fn plain(self, state: &Arc<PortState>, handle: &Arc<OnceLock<MachineHandle>>) -> Consoles {
        let copies = self.log.into_iter().chain([self.output]).collect();
        let log = LogPort::new(state, copies, ending(handle, ExitReason::Halted));
        Consoles { outputs: [Box::new(log), Box::new(std::io::sink()), Box::new(std::io::sink())] }
    }
}

/// A function that ends the machine, if there is one, for `reason`.
pub(crate) fn ending(handle: &Arc<OnceLock<MachineHandle>>, reason: ExitReason) -> Box<dyn Fn() + Send> {
    let handle = Arc::clone(handle);
    Box::new(move || {
        if let Some(handle) = handle.get() {
            handle.end(reason.clone());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that is full.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _bytes: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_output_that_cannot_be_written_is_named_at_the_end() {
        for (bare, what) in [(false, "the kernel's log"), (true, "the command's output")] {
            let (state, handle) = (Arc::<PortState>::default(), Arc::default());
            let sink = || Box::new(std::io::sink()) as Box<dyn Write + Send>;
            let full = || Box::new(Full) as Box<dyn Write + Send>;
            let (output, log) = if bare { (full(), sink()) } else { (sink(), full()) };
            let outputs = Outputs::new(output, sink(), vec![log], Box::new(|_| false), &state, &handle);
            let ends = outputs.ends();
            let mut consoles = outputs.plain(&state, &handle);
            consoles.outputs[0].write_all(b"a line of the console\n").expect("it is on its way");
            ends.finish();
            let why = state.status().broken.clone().expect("the run fails");
            assert!(why.starts_with(&format!("{what} cannot be written: ")), "{why}");
        }
    }
}
