//! Writes `faults.csv`: one line per fault. [`faults_read`](super::faults_read) reads it back.
//!
//! Ids are in hex with `0x`, times in nanoseconds. Columns `miss_ns` to `end_ns` are times since the recorder's start, empty
//! if the stage was not recorded; `device_ns` to `total_ns` are durations derived from them, and are not read back.

use std::borrow::Cow;
use std::io::{self, Write};

use itoa::Buffer;

use crate::trace::FaultRecord;

/// The columns and their meanings.
pub const COLUMNS: [(&str, &str); 26] = [
    ("scenario", "the scenario in which the fault began; empty outside scenarios"),
    ("mode", "its mode"),
    ("qpn", "number of the queue pair whose access missed"),
    ("pasid", "the process's address space; empty if it is not one"),
    ("key", "the on-demand region's address space; empty if it is not one"),
    ("iova", "the page, as the process, or the request, addresses it"),
    ("write", "1 for a write, 0 for a read"),
    ("group", "page request group index of the last round; for a region, the slot of the page fault's token"),
    (
        "requests",
        "page requests, or page fault events, sent: more than 1 if the page was gone again when the device retried",
    ),
    ("outcome", "copied, failed, coalesced (joined another queue pair's request) or abandoned"),
    ("miss_ns", "the device TLB and the IOMMU both missed: the fault begins"),
    ("round_ns", "the last round began; equal to miss_ns if requests is 1"),
    ("page_request_ns", "the page request, or the page fault, left the device"),
    ("queued_ns", "its entry was in the page request queue, or in the event queue"),
    ("interrupt_ns", "the interrupt was sent; empty if one was pending already"),
    (
        "taken_ns",
        "the guest's thread took the entry; this and the next two are empty without the guest's account",
    ),
    ("handling_ns", "a handler in the guest began work on the fault"),
    ("handled_ns", "the page was in the page table, or in the region's"),
    ("response_ns", "the guest's page group response, or its resume command, was read"),
    ("matched_ns", "the device matched the answer and returned the credit"),
    ("end_ns", "copied, failed or abandoned"),
    ("device_ns", "time the device had the fault: round to page request, matched to end"),
    ("iommu_ns", "time the IOMMU had it: page request to queue entry and interrupt, response to matched"),
    ("guest_ns", "time the guest had it: interrupt (or queue entry) to response"),
    ("again_ns", "time in earlier rounds: miss to round"),
    ("total_ns", "miss to end: the sum of the four"),
];

/// Writes the header and a line for each fault. `label` returns a scenario's name and mode, in which commas, quotes and line
/// ends are replaced by underscores.
pub(in crate::report) fn write<'a>(
    out: &mut impl Write,
    faults: impl Iterator<Item = FaultRecord>,
    label: impl Fn(u16) -> (&'a str, &'a str),
) -> io::Result<()> {
    let names: Vec<_> = COLUMNS.iter().map(|&(name, _)| name).collect();
    writeln!(out, "{}", names.join(","))?;
    let mut line = Line::default();
    for fault in faults {
        let (name, mode) = label(fault.scenario);
        line.fault(&plain(name), &plain(mode), &fault);
        out.write_all(line.end())?;
    }
    Ok(())
}

/// A reusable line buffer: there may be millions of lines, so it neither allocates nor uses `fmt`.
#[derive(Default)]
struct Line {
    text: Vec<u8>,
    number: Buffer,
}

impl Line {
    fn fault(&mut self, name: &str, mode: &str, fault: &FaultRecord) {
        self.text.clear();
        self.word(name);
        self.word(mode);
        self.hex(Some(u64::from(fault.qpn)));
        self.hex(fault.space.pasid().map(|pasid| u64::from(pasid.get())));
        self.hex(fault.space.key().map(u64::from));
        self.hex(Some(fault.iova.0));
        self.decimal(Some(u64::from(fault.write)));
        self.hex(fault.group.map(|group| u64::from(group.get())));
        self.decimal(Some(u64::from(fault.requests)));
        self.word(fault.outcome.name());
        let times = &fault.times;
        self.decimal(Some(times.miss));
        self.decimal(Some(times.round));
        let device = [times.page_request, times.queued, times.interrupt];
        let guest = [times.taken, times.handling, times.handled, times.response];
        device.into_iter().chain(guest).chain([times.matched]).for_each(|stage| self.decimal(stage));
        let split = times.split();
        for ns in [times.end, split.device, split.iommu, split.guest, split.again, times.total()] {
            self.decimal(Some(ns));
        }
    }

    /// The line; its last comma becomes the line end.
    fn end(&mut self) -> &[u8] {
        if let Some(last) = self.text.last_mut() {
            *last = b'\n';
        }
        &self.text
    }

    fn word(&mut self, word: &str) {
        self.text.extend_from_slice(word.as_bytes());
        self.text.push(b',');
    }

    fn decimal(&mut self, number: Option<u64>) {
        if let Some(number) = number {
            self.text.extend_from_slice(self.number.format(number).as_bytes());
        }
        self.text.push(b',');
    }

    fn hex(&mut self, number: Option<u64>) {
        if let Some(number) = number {
            self.text.extend_from_slice(b"0x");
            let digits = (number.max(1).ilog2() / 4) + 1;
            let digit = |place: u32| b"0123456789abcdef"[(number >> (4 * place) & 0xf) as usize];
            self.text.extend((0..digits).rev().map(digit));
        }
        self.text.push(b',');
    }
}

/// A name without characters that would need quoting.
pub(in crate::report) fn plain(name: &str) -> Cow<'_, str> {
    const SPECIAL: [char; 4] = [',', '"', '\n', '\r'];
    if name.contains(SPECIAL) { Cow::Owned(name.replace(SPECIAL, "_")) } else { Cow::Borrowed(name) }
}
