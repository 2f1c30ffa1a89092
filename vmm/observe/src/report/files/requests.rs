//! `requests.csv`: one line per sampled request, with all rows of its path (the table "One DMA" in docs/architecture.md).
//!
//! Rows *miss* to *match*, for a missing page, are those of the request's first fault, if that was kept. `faults` is
//! their number; `faults.csv` has all of them, with the same `qpn` and a `miss_ns` between `fetched_ns` and `end_ns`.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use refault_bus::probe::RequestEvent;

use super::faults::plain;
use super::faults_read::CsvError;
use crate::trace::{FaultRecord, Records, RequestRecord};

/// The columns and their meanings.
pub const REQUEST_COLUMNS: [(&str, &str); 26] = [
    ("scenario", "the scenario in which the request ended; empty outside scenarios"),
    ("mode", "its mode"),
    ("qpn", "number of the queue pair that sent it"),
    ("request", "its number on that queue pair, from 0"),
    ("operation", "the operation"),
    ("status", "status of its completion; 0 is success"),
    ("bytes", "bytes of the message"),
    ("translator", "what answered the first translation: device-tlb, iommu or table (the region's own)"),
    ("faults", "pages that were missing"),
    ("doorbell_ns", "the first doorbell since the device last read the queue; empty if none was needed"),
    ("fetched_ns", "the device had read and decoded it"),
    ("miss_ns", "its first page was missing; this and the next eight are empty if none was"),
    ("page_request_ns", "the page request, or the page fault, left the device"),
    ("queued_ns", "its entry was in the queue"),
    ("fault_interrupt_ns", "the interrupt for it was sent; empty if one was pending already"),
    ("taken_ns", "the guest's thread took the entry; empty, like the next two, without the guest's account"),
    ("handling_ns", "a handler in the guest began work on the fault"),
    ("handled_ns", "the page was in the page table, or in the region's"),
    ("response_ns", "the guest's answer was read"),
    ("matched_ns", "the device matched it"),
    ("translated_ns", "its first bytes were translated at both ends"),
    ("landed_ns", "all bytes had landed; empty if it failed"),
    ("written_ns", "its completion entry was in memory; empty if it requested none"),
    ("interrupted", "1 if an interrupt was raised for it"),
    ("end_ns", "the device finished it"),
    ("total_ns", "doorbell (or fetched) to end"),
];

/// Faults by queue pair, in the order of their misses.
#[derive(Debug, Default)]
pub(in crate::report) struct FaultsByQueuePair(HashMap<u32, Vec<FaultRecord>>);

impl FaultsByQueuePair {
    /// The faults of queue pairs with sampled requests.
    pub(in crate::report) fn of(records: &Records) -> Self {
        let mut faults: HashMap<u32, Vec<FaultRecord>> =
            records.requests.iter().map(|request| (request.event.qpn, Vec::new())).collect();
        for fault in records.faults.iter() {
            if let Some(known) = faults.get_mut(&fault.qpn) {
                known.push(fault);
            }
        }
        faults.values_mut().for_each(|faults| faults.sort_by_key(|fault| fault.times.miss));
        Self(faults)
    }

    /// The first fault of a request.
    pub(in crate::report) fn first(&self, request: &RequestRecord) -> Option<&FaultRecord> {
        let faults = self.0.get(&request.event.qpn)?;
        let at = faults.partition_point(|fault| fault.times.miss < request.event.fetched_ns);
        faults.get(at).filter(|fault| request.has(fault))
    }
}

/// Writes the header and a line for each request.
pub(in crate::report) fn write(out: &mut impl Write, records: &Records) -> io::Result<()> {
    let names: Vec<_> = REQUEST_COLUMNS.iter().map(|&(name, _)| name).collect();
    writeln!(out, "{}", names.join(","))?;
    let faults = FaultsByQueuePair::of(records);
    for request in &records.requests {
        let span = records.scenarios.get(usize::from(request.scenario));
        let (name, mode) = span.map_or(("", ""), |span| (span.name.as_str(), span.mode.as_str()));
        write!(out, "{},{},", plain(name), plain(mode))?;
        write_request(out, request, faults.first(request))?;
    }
    Ok(())
}

fn write_request(
    out: &mut impl Write,
    request: &RequestRecord,
    fault: Option<&FaultRecord>,
) -> io::Result<()> {
    let event = &request.event;
    let translator = event.translator.map_or("", |translator| translator.name());
    write!(out, "{:#x},{},{},{},", event.qpn, event.index, request.operation(), event.status)?;
    write!(out, "{},{translator},{},", event.bytes, event.faults)?;
    let times = fault.map(|fault| fault.times).unwrap_or_default();
    let stages = [
        event.doorbell_ns,
        Some(event.fetched_ns),
        fault.map(|fault| fault.times.miss),
        times.page_request,
        times.queued,
        times.interrupt,
        times.taken,
        times.handling,
        times.handled,
        times.response,
        times.matched,
        event.translated_ns,
        event.landed_ns,
        event.written_ns,
    ];
    for stage in stages {
        match stage {
            Some(at) => write!(out, "{at},")?,
            None => write!(out, ",")?,
        }
    }
    writeln!(out, "{},{},{}", u8::from(event.interrupted), event.end_ns, request.total())
}

/// Columns that [`read()`] needs: the ends of a request's steps.
const STEPS: [&str; 6] = ["doorbell_ns", "fetched_ns", "translated_ns", "landed_ns", "written_ns", "end_ns"];

/// Reads a file by [`write()`], and passes each request to `sink` with only its steps.
pub(in crate::report) fn read(
    input: impl BufRead,
    mut sink: impl FnMut(&RequestRecord),
) -> Result<(), CsvError> {
    let mut lines = input.lines();
    let header = lines.next().transpose()?.unwrap_or_default();
    let mut places = [0; STEPS.len()];
    for (place, name) in places.iter_mut().zip(STEPS) {
        let found = header.split(',').position(|column| column == name);
        *place = found.ok_or(CsvError::Header(name))?;
    }
    for (text, line) in lines.zip(2..) {
        let text = text?;
        let fields: Vec<&str> = text.split(',').collect();
        let mut times = [None; STEPS.len()];
        for ((time, place), column) in times.iter_mut().zip(places).zip(STEPS) {
            let value = fields.get(place).copied().unwrap_or("?");
            let wrong = || CsvError::Field { line, column, value: value.into(), expected: "a time" };
            *time = if value.is_empty() { None } else { Some(value.parse().map_err(|_| wrong())?) };
        }
        let [doorbell_ns, fetched, translated_ns, landed_ns, written_ns, end] = times;
        let (fetched_ns, end_ns) = (fetched.unwrap_or_default(), end.unwrap_or_default());
        let event = RequestEvent {
            doorbell_ns,
            fetched_ns,
            translated_ns,
            landed_ns,
            written_ns,
            end_ns,
            ..RequestEvent::default()
        };
        sink(&RequestRecord { scenario: 0, event });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use refault_bus::probe::Translator;

    use super::*;
    use crate::report::synthetic::{Shape, Synthetic};

    /// A run with a request that had a fault, and one on another queue pair that had none.
    fn records() -> Records {
        let mut records = Synthetic::new(Shape::Uniform, 50).records();
        let fault = records.faults.iter().next().expect("a fault");
        let event = RequestEvent {
            qpn: fault.qpn,
            index: 1024,
            opcode: refault_abi::codes::OP_RDMA_WRITE.0,
            bytes: 4096,
            faults: 1,
            fetched_ns: fault.times.miss,
            translator: Some(Translator::Iommu),
            end_ns: fault.times.end,
            ..RequestEvent::default()
        };
        let alone = RequestEvent { qpn: 0xfff, faults: 0, ..event };
        records.requests =
            [event, alone].map(|event| RequestRecord { scenario: fault.scenario, event }).to_vec();
        records
    }

    fn lines(records: &Records) -> Vec<Vec<String>> {
        let mut text = Vec::new();
        write(&mut text, records).unwrap();
        let text = String::from_utf8(text).unwrap();
        text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
    }

    #[test]
    fn a_request_that_faulted_has_the_rows_of_its_fault() {
        let records = records();
        let lines = lines(&records);
        assert!(lines.iter().all(|line| line.len() == REQUEST_COLUMNS.len()), "{lines:?}");
        let column = |name| REQUEST_COLUMNS.iter().position(|&(known, _)| known == name).unwrap();
        let fault = records.faults.iter().next().unwrap();
        assert_eq!(lines[1][column("operation")], "write");
        assert_eq!(lines[1][column("translator")], "iommu");
        assert_eq!(lines[1][column("matched_ns")], fault.times.matched.unwrap().to_string());
        assert_eq!(lines[2][column("miss_ns")], "");
        assert_eq!(lines[2][column("matched_ns")], "");
    }

    #[test]
    fn the_steps_are_read_back() {
        let mut records = records();
        records.requests[1].event.translated_ns = Some(records.requests[1].event.fetched_ns + 10);
        let mut text = Vec::new();
        write(&mut text, &records).unwrap();
        let mut back = Vec::new();
        read(text.as_slice(), |one| back.push(one.steps().collect::<Vec<_>>())).unwrap();
        let steps: Vec<_> = records.requests.iter().map(|one| one.steps().collect::<Vec<_>>()).collect();
        assert_eq!(back, steps);
    }

    #[test]
    fn an_invalid_field_is_named_by_line_and_column() {
        let header = REQUEST_COLUMNS.map(|(name, _)| name).join(",");
        let error = |text: &str| read(text.as_bytes(), |_| ()).unwrap_err().to_string();
        assert!(error("qpn,request\n").contains("doorbell_ns"));
        let short = error(&format!("{header}\na,b,0x1\n"));
        assert!(short.contains("line 2") && short.contains("doorbell_ns"), "{short}");
    }
}
