//! Feeds the guest's events and the recorder's counts to the table, for each line of the control channel.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::ScenarioBoard;
use super::protocol::{DemoEvent, Subject};
use super::table::ScenarioTable;
use refault_observe::trace::{FaultSummary, Recorder};

/// A run in progress, as it is shown.
pub(super) struct View {
    /// Records a real guest's faults; none for the model.
    recorder: Option<Arc<Recorder>>,
    table: ScenarioTable<Box<dyn Write + Send>>,
    start: Instant,
    /// The state of the scenarios.
    pub(super) board: ScenarioBoard,
    /// From the start to the first line of the guest's program.
    pub(super) boot: Option<Duration>,
}

impl View {
    /// A run that begins now. The table goes to standard output, and is redrawn in place if `live`.
    pub(super) fn new(recorder: Arc<Recorder>, live: bool) -> Self {
        Self::of(Some(recorder), live)
    }

    /// A run of the model, which reports the faults of each scenario itself.
    pub(super) fn of_model(live: bool) -> Self {
        Self::of(None, live)
    }

    fn of(recorder: Option<Arc<Recorder>>, live: bool) -> Self {
        let table = ScenarioTable::new(Box::new(std::io::stdout()) as Box<dyn Write + Send>, live);
        Self { recorder, table, start: Instant::now(), board: ScenarioBoard::default(), boot: None }
    }

    /// Handles one line of the guest's program.
    pub(super) fn take(&mut self, line: &str) {
        let Some(event) = DemoEvent::parse(line) else {
            tracing::debug!(line, "not an event");
            return;
        };
        self.boot.get_or_insert_with(|| self.start.elapsed());
        // No other scenario's DMA is in flight between begin and end, so all faults between them are this one's.
        let recorder = self.recorder.clone();
        match (&event, &recorder) {
            (DemoEvent::Begin(subject), Some(recorder)) => {
                recorder.begin(&subject.scenario, &subject.label())
            }
            (DemoEvent::End { .. }, Some(recorder)) => recorder.end(),
            _ => {}
        }
        self.update(event, |subject| {
            recorder
                .map(|recorder| recorder.scenario_summary(&subject.scenario, &subject.label()))
                .unwrap_or_default()
        });
    }

    /// Handles an event of the model, with the faults of its scenario.
    pub(super) fn show(&mut self, event: DemoEvent, faults: FaultSummary) {
        self.update(event, |_| faults);
    }

    fn update(&mut self, event: DemoEvent, faults: impl FnOnce(&Subject) -> FaultSummary) {
        let changed = self.board.take(event, faults);
        let changed = changed.and_then(|index| self.board.rows.get(index));
        // If standard output is closed, the run goes on for its files.
        let _ = self.table.show(&self.board, changed);
    }

    /// Draws the table for the last time.
    pub(super) fn finish(&mut self) {
        let _ = self.table.finish(&self.board);
    }
}

/// Whether the table is redrawn in place: standard output is a terminal that moves its cursor.
pub(super) fn live() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}
