//! Compares two operations in one run.
//!
//! The machine that runs a bench is never quiet, so nothing is compared with a figure of another day: both sides take
//! turns, and the ratio of their medians counts. Samples are much shorter than a scheduler's slice, and the side that
//! goes first changes from round to round: so a busy machine interrupts few samples, and not always of the same side.

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The limit of a ratio.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At most this much of the baseline's time.
    AtMost(f64),
    /// At least this much of the baseline's speed.
    SpeedAtLeast(f64),
    /// No limit: the ratio is printed for comparison.
    None,
}

/// One comparison.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The measured operation.
    pub name: &'a str,
    /// The operation that it is compared with.
    pub baseline: &'a str,
    /// The limit of their ratio.
    pub target: Target,
}

/// Does an operation `n` times and returns how long that took, without preparations.
pub type Side<'a> = &'a mut dyn FnMut(u64) -> Duration;

/// A run of comparisons.
pub struct Bench {
    rounds: usize,
    sample: Duration,
    /// Only comparisons whose names contain this are made.
    filter: String,
    missed: u32,
}

/// Nanoseconds per operation: median and the quartiles.
#[derive(Clone, Copy, Debug)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Bench {
    /// Reads the command line: `--quick` takes a fifteenth of the time; a word selects the comparisons whose names
    /// contain it.
    pub fn from_arguments() -> Self {
        let quick = std::env::args().any(|argument| argument == "--quick");
        let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
        let (rounds, sample) = (if quick { 201 } else { 3001 }, Duration::from_micros(200));
        println!("median of {rounds} interleaved rounds of {sample:?} a side; quartiles in parentheses");
        Self { rounds, sample, filter, missed: 0 }
    }

    /// Measures both sides in turn and prints their ratio beside the target.
    pub fn compare(&mut self, comparison: Comparison<'_>, measured: Side<'_>, baseline: Side<'_>) {
        if !comparison.name.contains(&self.filter) {
            return;
        }
        let [measured, baseline] = self.interleave([measured, baseline]);
        let ratio = measured.median / baseline.median;
        let (shown, promise, met) = match comparison.target {
            Target::AtMost(limit) => (ratio, format!("target <= {limit}"), ratio <= limit),
            Target::SpeedAtLeast(limit) => (1.0 / ratio, format!("target >= {limit}"), 1.0 / ratio >= limit),
            Target::None => (ratio, "no target".to_owned(), true),
        };
        let verdict = if met { "" } else { ": MISSED" };
        self.missed += u32::from(!met);
        println!("\n{}\n    {measured}\n{}\n    {baseline}", comparison.name, comparison.baseline);
        println!("    ratio {shown:.2}, {promise}{verdict}");
    }

    /// Measures one operation alone, and prints its time.
    pub fn note(&mut self, name: &str, side: Side<'_>) {
        if !name.contains(&self.filter) {
            return;
        }
        let [spread] = self.interleave([side]);
        println!("\n{name}\n    {spread}");
    }

    /// The run's exit status: not zero if a target was missed.
    pub fn finish(self) -> ExitCode {
        println!();
        if self.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn interleave<const N: usize>(&self, sides: [Side<'_>; N]) -> [Spread; N] {
        let mut sides = sides.map(|side| (self.calibrate(side), Vec::with_capacity(self.rounds), side));
        for round in 0..self.rounds {
            for turn in 0..N {
                let (count, samples, side) = &mut sides[(round + turn) % N];
                samples.push(side(*count).as_secs_f64() * 1e9 / *count as f64);
            }
        }
        sides.map(|(_, samples, _)| Spread::of(samples))
    }

    /// Number of operations that fill one sample.
    fn calibrate(&self, side: &mut dyn FnMut(u64) -> Duration) -> u64 {
        let mut count = 1;
        loop {
            let took = side(count);
            if took >= self.sample / 2 || count >= 1 << 20 {
                let per_operation = took.as_secs_f64() / count as f64;
                return ((self.sample.as_secs_f64() / per_operation) as u64).clamp(1, 1 << 20);
            }
            count *= 2;
        }
    }
}

impl Spread {
    fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |quarter: usize| samples[(samples.len() - 1) * quarter / 4];
        Self { low: at(1), median: at(2), high: at(3) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} ns ({:.0} to {:.0})", self.median, self.low, self.high)
    }
}

/// How long `work` takes.
pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
