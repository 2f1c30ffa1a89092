//! Brings the guest's events, the recorder and the table together, line by line of the control channel.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::Board;
use super::protocol::{Event, Subject};
use super::table::Table;
use refault_observe::trace::{FaultSummary, Recorder};

/// A run while it goes on.
pub(super) struct View {
    /// What the device says of a real guest's scenarios.
    recorder: Option<Arc<Recorder>>,
    table: Table<Box<dyn Write + Send>>,
    start: Instant,
    /// What is known of it.
    pub(super) board: Board,
    /// How long the guest took to its program's first line.
    pub(super) boot: Option<Duration>,
}

impl View {
    /// A run that begins now; the table goes to standard output, redrawn in place if `live`.
    pub(super) fn new(recorder: Arc<Recorder>, live: bool) -> Self {
        Self::of(Some(recorder), live)
    }

    /// A run of the model, which says of each scenario what its faults come to.
    pub(super) fn of_model(live: bool) -> Self {
        Self::of(None, live)
    }

    fn of(recorder: Option<Arc<Recorder>>, live: bool) -> Self {
        let table = Table::new(Box::new(std::io::stdout()) as Box<dyn Write + Send>, live);
        Self { recorder, table, start: Instant::now(), board: Board::default(), boot: None }
    }

    /// One line of the guest's program.
    pub(super) fn take(&mut self, line: &str) {
        let Some(event) = Event::parse(line) else {
            tracing::debug!(line, "not an event");
            return;
        };
        self.boot.get_or_insert_with(|| self.start.elapsed());
        // Between begin and end no other scenario's DMA is under way, so the recorder can be told from here.
        let recorder = self.recorder.clone();
        match (&event, &recorder) {
            (Event::Begin(subject), Some(recorder)) => recorder.begin(&subject.scenario, &subject.label()),
            (Event::End { .. }, Some(recorder)) => recorder.end(),
            _ => {}
        }
        self.put(event, |subject| {
            recorder
                .map(|recorder| recorder.scenario_summary(&subject.scenario, &subject.label()))
                .unwrap_or_default()
        });
    }

    /// An event of the model, and what the faults of the scenario that it is about come to.
    pub(super) fn show(&mut self, event: Event, faults: FaultSummary) {
        self.put(event, |_| faults);
    }

    fn put(&mut self, event: Event, faults: impl FnOnce(&Subject) -> FaultSummary) {
        let changed = self.board.take(event, faults);
        let changed = changed.and_then(|index| self.board.rows.get(index));
        // Whoever watched has gone; the run goes on for its files.
        let _ = self.table.show(&self.board, changed);
    }

    /// The last drawing.
    pub(super) fn finish(&mut self) {
        let _ = self.table.finish(&self.board);
    }
}

/// Whether the table is redrawn in place: standard output is a terminal that moves its cursor.
pub(super) fn live() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}
