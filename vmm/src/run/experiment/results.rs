//! Results of the guest's program, and figures of the guest's fault handlers.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use refault_lab::outcome::{HandlerOutcome, LoadOutcome, RequestKind};
use refault_observe::trace::Records;

/// Numbers before the latencies: `struct load_totals` of `guest-driver/workload/load/load.h`.
const TOTALS: usize = 8;
/// Significant digits of latencies, as in the model.
const DIGITS: u8 = 3;
/// Bytes that the archive itself takes.
const SPARE: u64 = 64 << 10;

/// Bytes that the results of `requests` requests take.
pub(super) fn bytes(requests: u64) -> u64 {
    requests * 8 + TOTALS as u64 * 8 + SPARE
}

/// Reads the file of results: totals, then a latency in nanoseconds for each request, as little-endian words.
///
/// # Errors
/// They are missing, damaged, or count wrong bytes.
pub(super) fn read(path: &Path) -> Result<LoadOutcome> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Result<LoadOutcome> {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    let mut next = || words.next().context("the results are truncated");
    let (completed, failed, bytes, duration_ns) = (next()?, next()?, next()?, next()?);
    let (_checked, wrong, _churned, latencies) = (next()?, next()?, next()?, next()?);
    ensure!(wrong == 0, "{wrong} messages did not contain the bytes that were written");
    ensure!(rest.is_empty() && words.len() as u64 == latencies, "the results are truncated");
    let mut latency_ns = Histogram::new(DIGITS).expect("digits from 0 to 5");
    // An automatically resized histogram takes every value.
    words.for_each(|ns| latency_ns.record(ns).unwrap_or_default());
    Ok(LoadOutcome {
        completed,
        failed,
        bytes,
        duration_ns,
        latency_ns,
        by_kind_ns: RequestKind::histograms(),
    })
}

/// Figures of the handlers, from the faults that the guest's account covers.
pub(super) fn handlers(records: &Records) -> HandlerOutcome {
    let mut outcome = HandlerOutcome::default();
    let mut steps = Vec::new();
    for fault in records.faults.iter() {
        let times = fault.times;
        let (Some(taken), Some(handling), Some(handled)) = (times.taken, times.handling, times.handled)
        else {
            continue;
        };
        outcome.faults += 1;
        outcome.wait_ns += u128::from(handling.saturating_sub(taken));
        outcome.busy_ns += u128::from(handled.saturating_sub(handling));
        steps.extend([(taken, 1i64), (handled, -1)]);
    }
    steps.sort_unstable();
    let mut outstanding = 0;
    for (_, step) in steps {
        outstanding += step;
        outcome.most_outstanding = outcome.most_outstanding.max(outstanding.unsigned_abs());
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(totals: [u64; TOTALS], latencies: &[u64]) -> Vec<u8> {
        totals.iter().chain(latencies).flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn results_are_read_as_the_program_writes_them() {
        let outcome = parse(&file([3, 0, 12288, 900, 3, 0, 5, 3], &[100, 200, 300])).expect("whole");
        assert_eq!((outcome.completed, outcome.bytes, outcome.duration_ns), (3, 12288, 900));
        assert_eq!((outcome.latency_ns.len(), outcome.latency_ns.max()), (3, 300));
    }

    #[test]
    fn damaged_results_and_wrong_bytes_are_errors() {
        let whole = file([3, 0, 12288, 900, 3, 0, 5, 3], &[100, 200, 300]);
        for length in [0, 8, 63, 64, whole.len() - 8, whole.len() - 1] {
            assert!(parse(&whole[..length]).is_err(), "{length}");
        }
        let wrong = parse(&file([1, 0, 64, 9, 1, 1, 0, 1], &[9])).expect_err("a message is wrong");
        assert!(wrong.to_string().contains("did not contain the bytes"), "{wrong}");
    }
}
