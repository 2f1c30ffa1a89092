//! The progress of a run: a table that is redrawn on a terminal, or a line for each scenario that ends.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::board::{ScenarioBoard, ScenarioRow, ScenarioState};
use super::options::Mode;
use refault_observe::summary::RunResult;

/// Minimum time between two drawings on a terminal.
const PERIOD: Duration = Duration::from_millis(200);

/// Writes a [`ScenarioBoard`] as text.
pub struct ScenarioTable<W> {
    out: W,
    /// Redraw in place: a terminal.
    live: bool,
    /// Lines to move up before the next drawing.
    drawn: usize,
    last: Option<Instant>,
    /// The table that was shown last, by its number: see [`tables`].
    table: Option<usize>,
}

impl<W: Write> ScenarioTable<W> {
    /// Shows on `out`, redrawing in place if `live`.
    pub fn new(out: W, live: bool) -> Self {
        Self { out, live, drawn: 0, last: None, table: None }
    }

    /// Shows a change of the board, or of one `row` of it.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn show(&mut self, board: &ScenarioBoard, row: Option<&ScenarioRow>) -> io::Result<()> {
        if !self.live {
            return self.line(board, row);
        }
        let ended = row.is_some_and(|row| matches!(row.state, ScenarioState::Ended(_)));
        if !ended && self.last.is_some_and(|last| last.elapsed() < PERIOD) {
            return Ok(());
        }
        self.draw(board)
    }

    /// Prints text that stays, above the table.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn note(&mut self, board: &ScenarioBoard, text: &str) -> io::Result<()> {
        self.rewind()?;
        writeln!(self.out, "{text}")?;
        if self.live { self.draw(board) } else { self.out.flush() }
    }

    /// Draws the table for the last time.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn finish(&mut self, board: &ScenarioBoard) -> io::Result<()> {
        if self.live { self.draw(board) } else { Ok(()) }
    }

    fn draw(&mut self, board: &ScenarioBoard) -> io::Result<()> {
        let tables = tables(board);
        let has_begun = |rows: &&[ScenarioRow]| rows.iter().any(|row| row.state != ScenarioState::Waiting);
        let current = tables.iter().rposition(has_begun).unwrap_or(0);
        self.rewind()?;
        for (number, rows) in tables.iter().enumerate().take(current + 1).skip(self.table.unwrap_or(0)) {
            // The one before is complete now, and stays.
            self.drawn = 0;
            self.table = Some(number);
            self.draw_rows(rows)?;
        }
        self.last = Some(Instant::now());
        self.out.flush()
    }

    fn draw_rows(&mut self, rows: &[ScenarioRow]) -> io::Result<()> {
        let modes = modes(rows);
        write!(self.out, "{}", header(&modes))?;
        self.drawn = 2;
        for line in lines(rows) {
            writeln!(self.out, "{}", cells(line, &modes))?;
            self.drawn += 1;
        }
        Ok(())
    }

    /// Back to the first line of the table that is drawn, and everything below it cleared.
    fn rewind(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            write!(self.out, "\x1b[{}A\x1b[J", self.drawn)?;
            self.drawn = 0;
        }
        Ok(())
    }

    /// The line of `row`, when all of it has ended.
    fn line(&mut self, board: &ScenarioBoard, row: Option<&ScenarioRow>) -> io::Result<()> {
        let Some(row) = row else { return Ok(()) };
        let of_row = |line: &&[ScenarioRow]| line.iter().any(|other| other.subject == row.subject);
        let tables = tables(board);
        let mut found = tables
            .iter()
            .enumerate()
            .filter_map(|(number, rows)| Some((number, rows, lines(rows).find(of_row)?)));
        let Some((number, rows, line)) = found.next() else { return Ok(()) };
        if !line.iter().all(|row| matches!(row.state, ScenarioState::Ended(_))) {
            return Ok(());
        }
        let modes = modes(rows);
        if self.table.replace(number) != Some(number) {
            write!(self.out, "{}", header(&modes))?;
        }
        writeln!(self.out, "{}", cells(line, &modes))?;
        let ill = [RunResult::Fail, RunResult::Slow].map(ScenarioState::Ended);
        for row in line.iter().filter(|row| ill.contains(&row.state)) {
            writeln!(self.out, "             {}: {}", row.subject.mode, row.reason)?;
        }
        self.out.flush()
    }
}

/// The rows of each table, in their order: modes over a wire have tables of their own, or the lines would be too long.
fn tables(board: &ScenarioBoard) -> Vec<&[ScenarioRow]> {
    board.rows.chunk_by(|a, b| is_over_wire(a) == is_over_wire(b)).collect()
}

fn is_over_wire(row: &ScenarioRow) -> bool {
    [Mode::Remote, Mode::Lossy].iter().any(|mode| mode.name() == row.subject.mode)
}

/// The modes of a table, in the order of their first rows.
fn modes(rows: &[ScenarioRow]) -> Vec<&str> {
    let mut modes: Vec<&str> = Vec::new();
    for row in rows {
        if !modes.contains(&row.subject.mode.as_str()) {
            modes.push(&row.subject.mode);
        }
    }
    modes
}

/// Rows shown side by side: one scenario with mappings of one size, in all its modes.
fn lines(rows: &[ScenarioRow]) -> impl Iterator<Item = &[ScenarioRow]> {
    let subject = |row: &ScenarioRow| (row.subject.scenario.clone(), row.subject.mapping.clone());
    rows.chunk_by(move |a, b| subject(a) == subject(b))
}

/// Whether a mode has the state as its only column: pinned memory, which is never written.
fn is_narrow(mode: &str) -> bool {
    mode == "pinned"
}

/// Two lines: the modes, and the names of their columns.
fn header(modes: &[&str]) -> String {
    let (mut above, mut below) = (" ".repeat(17), format!("{:<12} {:<4}", "scenario", "maps"));
    for mode in modes {
        if is_narrow(mode) {
            above += &format!(" | {mode:<7}");
            below += " |        ";
        } else {
            above += &format!(" | {mode:<35}");
            below += &format!(" | {:<7} {:>9} {:>8} {:>8}", "state", "writes/s", "faults", "p50");
        }
    }
    below += &format!(" | {:>8} {:>9} {:>5} {:>7}", "moved", "verified", "wrong", "time");
    format!("{}\n{below}\n", above.trim_end())
}

fn cells(line: &[ScenarioRow], modes: &[&str]) -> String {
    let subject = line.first().map(|row| row.subject.clone()).unwrap_or_default();
    let mut text = format!("{:<12} {:<4}", subject.scenario, subject.mapping);
    for mode in modes {
        let row = line.iter().find(|row| row.subject.mode == *mode);
        text += &match (row, is_narrow(mode)) {
            (row, true) => format!(" | {:<7}", row.map_or("", |row| state(row))),
            (None, false) => format!(" | {:35}", ""),
            (Some(row), false) => format!(" | {}", mode_cells(row)),
        };
    }
    let sum = |count: fn(&ScenarioRow) -> u64| line.iter().map(count).sum::<u64>();
    let seconds: f64 = line.iter().map(|row| row.counters.seconds).sum();
    text + &format!(
        " | {:>8} {:>9} {:>5} {seconds:>5.1} s",
        sum(|row| row.counters.blocks_moved),
        bytes(sum(|row| row.counters.bytes_verified)),
        sum(|row| row.counters.bytes_wrong),
    )
}

fn mode_cells(row: &ScenarioRow) -> String {
    let counters = &row.counters;
    let rate = if counters.seconds > 0.0 { counters.writes as f64 / counters.seconds } else { 0.0 };
    let (faults, p50) = (row.faults.faults, duration(row.faults.fault_ns.p50));
    match row.state {
        ScenarioState::Waiting => format!("{:<35}", state(row)),
        _ => format!("{:<7} {rate:>9.0} {faults:>8} {p50:>8}", state(row)),
    }
}

/// Pinning passes when the kernel refuses it for the file. The scenario `pinned` then does more, so it just passes.
fn state(row: &ScenarioRow) -> &'static str {
    match row.state {
        ScenarioState::Waiting => "waiting",
        ScenarioState::Running => "running",
        ScenarioState::Ended(RunResult::Fail) => "FAIL",
        ScenarioState::Ended(RunResult::Slow) => "slow",
        ScenarioState::Ended(RunResult::Pass)
            if is_narrow(&row.subject.mode) && row.subject.scenario != "pinned" =>
        {
            "refused"
        }
        ScenarioState::Ended(RunResult::Pass) => "pass",
    }
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
    use crate::demo::protocol::{DemoEvent, Subject};
    use refault_observe::trace::FaultSummary;
    use refault_os::speed::Speed;

    fn board() -> ScenarioBoard {
        let subject = |scenario: &str, mode: &str| Subject {
            scenario: scenario.into(),
            mode: mode.into(),
            mapping: "4k".into(),
        };
        let scenarios =
            vec![subject("steady", "pasid"), subject("steady", "pinned"), subject("kill", "pasid")];
        let plan = DemoEvent::Plan {
            kernel: String::new(),
            file_bytes: 0,
            queue_pairs: 4,
            scale: 1.0,
            speed: Speed::default(),
            scenarios,
        };
        let mut board = ScenarioBoard::default();
        board.take(plan, |_| FaultSummary::default());
        board
    }

    fn shown(live: bool, change: impl Fn(&mut ScenarioBoard, &mut ScenarioTable<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        change(&mut board(), &mut ScenarioTable::new(&mut out, live));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_a_terminal_each_scenario_is_one_line_when_all_its_modes_ended() {
        let text = shown(false, |board, table| {
            table.show(board, None).unwrap();
            board.rows[0].state = ScenarioState::Ended(RunResult::Pass);
            table.show(board, Some(&board.rows[0])).unwrap();
            board.rows[1].state = ScenarioState::Ended(RunResult::Pass);
            table.show(board, Some(&board.rows[1])).unwrap();
            table.finish(board).unwrap();
        });
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains('\x1b') && text.contains("steady       4k   | pass"), "{text}");
        assert!(text.contains("| refused |"), "{text}");
    }

    #[test]
    fn a_failed_scenario_shows_its_reason() {
        let text = shown(false, |board, table| {
            board.rows[2].state = ScenarioState::Ended(RunResult::Fail);
            board.rows[2].reason = "page tables grew".into();
            table.show(board, Some(&board.rows[2])).unwrap();
        });
        assert!(text.contains("FAIL") && text.contains("pasid: page tables grew"), "{text}");
    }

    #[test]
    fn a_slow_scenario_shows_its_progress() {
        let text = shown(false, |board, table| {
            board.rows[2].state = ScenarioState::Ended(RunResult::Slow);
            board.rows[2].reason = "6 % of its goals in 2 s".into();
            table.show(board, Some(&board.rows[2])).unwrap();
        });
        assert!(text.contains("| slow ") && text.contains("pasid: 6 % of its goals"), "{text}");
        assert!(!text.contains("FAIL"), "{text}");
    }

    #[test]
    fn on_a_terminal_the_table_is_drawn_over_itself() {
        let text = shown(true, |board, table| {
            table.show(board, None).unwrap();
            table.show(board, None).unwrap();
            table.finish(board).unwrap();
        });
        assert_eq!(text.matches("\x1b[4A\x1b[J").count(), 1, "the second came too soon: {text:?}");
        assert_eq!(text.matches("writes/s").count(), 2);
    }

    #[test]
    fn modes_over_a_wire_have_a_table_of_their_own() {
        let with_remote = |board: &mut ScenarioBoard| {
            let mut row = board.rows[0].clone();
            row.subject.mode = "remote".into();
            board.rows.push(row);
        };
        let end = |board: &mut ScenarioBoard, table: &mut ScenarioTable<&mut Vec<u8>>| {
            for index in 0..board.rows.len() {
                board.rows[index].state = ScenarioState::Ended(RunResult::Pass);
                table.show(board, Some(&board.rows[index])).unwrap();
            }
            table.finish(board).unwrap();
        };
        let text = shown(false, |board, table| {
            with_remote(board);
            end(board, table);
        });
        assert_eq!(text.lines().count(), 3 + 1 + 3, "{text}");
        assert!(text.lines().nth(4).unwrap().trim() == "| remote", "{text}");
        let text = shown(true, |board, table| {
            with_remote(board);
            end(board, table);
        });
        let last = text.rsplit("\x1b[J").next().unwrap();
        assert!(last.contains("| remote") && !last.contains("| pasid"), "the first table stays: {text:?}");
        assert!(last.lines().count() == 3, "{last}");
    }

    #[test]
    fn columns_stay_in_line() {
        let mut board = board();
        board.rows[0].state = ScenarioState::Running;
        board.rows[0].counters.bytes_verified = 900 << 20;
        board.rows[0].faults.fault_ns.p50 = 9_999_999_999;
        let modes = modes(&board.rows);
        let header = header(&modes);
        let below = header.lines().nth(1).unwrap();
        for line in lines(&board.rows) {
            assert_eq!(cells(line, &modes).len(), below.len());
        }
        assert!(below.len() <= 132, "it fits a wide terminal");
    }
}
