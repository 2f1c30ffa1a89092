//! The run as people watch it: a table that is drawn anew on a terminal, or a line whenever a scenario ends.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::board::{Board, Row, State};
use super::summary::Outcome;

/// A terminal is drawn to at most so often.
const PERIOD: Duration = Duration::from_millis(200);

/// Shows a board.
pub struct Table<W> {
    out: W,
    /// Redraw in place: a terminal.
    live: bool,
    /// Lines to go up before the next drawing.
    drawn: usize,
    last: Option<Instant>,
    begun: bool,
}

impl<W: Write> Table<W> {
    /// Shows on `out`, redrawing in place if `live`.
    pub fn new(out: W, live: bool) -> Self {
        Self { out, live, drawn: 0, last: None, begun: false }
    }

    /// The board has changed; `row` is what changed, if it is one row.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn show(&mut self, board: &Board, row: Option<&Row>) -> io::Result<()> {
        if !self.live {
            return self.line(row);
        }
        let ended = row.is_some_and(|row| matches!(row.state, State::Ended(_)));
        if !ended && self.last.is_some_and(|last| last.elapsed() < PERIOD) {
            return Ok(());
        }
        self.draw(board)
    }

    /// Text that stays, above the table.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn note(&mut self, board: &Board, text: &str) -> io::Result<()> {
        self.rewind()?;
        writeln!(self.out, "{text}")?;
        if self.live { self.draw(board) } else { self.out.flush() }
    }

    /// The last drawing.
    ///
    /// # Errors
    /// Nobody reads.
    pub fn finish(&mut self, board: &Board) -> io::Result<()> {
        if self.live { self.draw(board) } else { Ok(()) }
    }

    fn draw(&mut self, board: &Board) -> io::Result<()> {
        if board.rows.is_empty() {
            return Ok(());
        }
        self.rewind()?;
        writeln!(self.out, "{}", header())?;
        for row in &board.rows {
            writeln!(self.out, "{}", cells(row))?;
        }
        self.drawn = board.rows.len() + 1;
        self.last = Some(Instant::now());
        self.out.flush()
    }

    /// Back to the table's first line, and everything below it cleared.
    fn rewind(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            write!(self.out, "\x1b[{}A\x1b[J", self.drawn)?;
            self.drawn = 0;
        }
        Ok(())
    }

    fn line(&mut self, row: Option<&Row>) -> io::Result<()> {
        let Some(row) = row.filter(|row| matches!(row.state, State::Ended(_))) else { return Ok(()) };
        if !self.begun {
            self.begun = true;
            writeln!(self.out, "{}", header())?;
        }
        writeln!(self.out, "{}", cells(row))?;
        if matches!(row.state, State::Ended(Outcome::Fail)) {
            writeln!(self.out, "             {}", row.reason)?;
        }
        self.out.flush()
    }
}

fn header() -> String {
    let [name, mode, state, time, rate, faults] = ["scenario", "mode", "state", "time", "writes/s", "faults"];
    let [p50, p99, moved, verified, wrong] = ["p50", "p99", "moved", "verified", "wrong"];
    format!(
        "{name:<12} {mode:<4} {state:<7} {time:>7} {rate:>9} {faults:>7} {p50:>8} {p99:>8} {moved:>8} \
         {verified:>9} {wrong:>5}"
    )
}

fn cells(row: &Row) -> String {
    let counters = &row.counters;
    let state = match row.state {
        State::Waiting => return format!("{:<12} {:<4} waiting", row.subject.scenario, row.subject.mode),
        State::Running => "running",
        State::Ended(Outcome::Pass) => "pass",
        State::Ended(Outcome::Fail) => "FAIL",
    };
    let rate = if counters.seconds > 0.0 { counters.writes as f64 / counters.seconds } else { 0.0 };
    format!(
        "{:<12} {:<4} {state:<7} {:>5.1} s {rate:>9.0} {:>7} {:>8} {:>8} {:>8} {:>9} {:>5}",
        row.subject.scenario,
        row.subject.mode,
        counters.seconds,
        row.faults.faults,
        duration(row.faults.fault_ns.p50),
        duration(row.faults.fault_ns.p99),
        counters.blocks_moved,
        bytes(counters.bytes_verified),
        counters.bytes_wrong,
    )
}

/// A duration in at most eight characters.
fn duration(ns: u64) -> String {
    match ns {
        0 => "-".into(),
        1..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} us", ns / 1_000),
        1_000_000..999_900_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

fn bytes(count: u64) -> String {
    match count {
        0..1_048_576 => format!("{} KiB", count >> 10),
        1_048_576..10_737_418_240 => format!("{} MiB", count >> 20),
        _ => format!("{} GiB", count >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::protocol::{Event, Subject};
    use crate::trace::FaultSummary;

    fn board() -> Board {
        let scenarios = ["steady", "kill"].map(|name| Subject { scenario: name.into(), mode: "4k".into() });
        let plan =
            Event::Plan { kernel: String::new(), file_bytes: 0, queue_pairs: 4, scenarios: scenarios.into() };
        let mut board = Board::default();
        board.take(plan, |_| FaultSummary::default());
        board
    }

    fn shown(live: bool, change: impl Fn(&mut Board, &mut Table<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        change(&mut board(), &mut Table::new(&mut out, live));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_a_terminal_each_scenario_is_one_line_when_it_ends() {
        let text = shown(false, |board, table| {
            table.show(board, None).unwrap();
            board.rows[0].state = State::Running;
            table.show(board, Some(&board.rows[0])).unwrap();
            board.rows[0].state = State::Ended(Outcome::Pass);
            table.show(board, Some(&board.rows[0])).unwrap();
            table.finish(board).unwrap();
        });
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains('\x1b') && text.contains("steady       4k   pass"), "{text}");
    }

    #[test]
    fn a_failed_scenario_says_why() {
        let text = shown(false, |board, table| {
            board.rows[1].state = State::Ended(Outcome::Fail);
            board.rows[1].reason = "page tables grew".into();
            table.show(board, Some(&board.rows[1])).unwrap();
        });
        assert!(text.contains("FAIL") && text.contains("page tables grew"), "{text}");
    }

    #[test]
    fn on_a_terminal_the_table_is_drawn_over_itself() {
        let text = shown(true, |board, table| {
            table.show(board, None).unwrap();
            table.show(board, None).unwrap();
            table.finish(board).unwrap();
        });
        assert_eq!(text.matches("\x1b[3A\x1b[J").count(), 1, "the second came too soon: {text:?}");
        assert_eq!(text.matches(&header()).count(), 2);
    }

    #[test]
    fn columns_stay_in_line() {
        let mut row = board().rows.remove(0);
        row.state = State::Running;
        row.counters.bytes_verified = 900 << 20;
        row.faults.fault_ns.p99 = 9_999_999_999;
        assert_eq!(cells(&row).len(), header().len());
    }
}
