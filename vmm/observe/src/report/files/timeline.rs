//! `trace.json`: the run as a timeline, in the JSON format that Perfetto and chrome://tracing load.
//!
//! Four groups of tracks: the scenarios; the device's queue pairs (one track each: a fault is a slice, with its stages nested
//! in it); the invalidations with a counter of open faults; and the sampled requests (one track for each queue pair: a
//! request is a slice, with its steps nested in it, and in these the stages of its first fault).

use std::collections::HashMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::requests::FaultsByQueuePair;
use super::tracks::{Track, Tracks, fair_shares};
use crate::report::experiment::TimeBase;
use crate::trace::{FaultRecord, Invalidation, Records, RequestRecord, Segment};

/// Most faults shown: a fault is about a kilobyte of JSON, and viewers need files below 100 MB.
pub(in crate::report) const MAX_FAULTS: usize = 20_000;

/// Most invalidations shown.
const MAX_INVALIDATIONS: usize = 20_000;

const SCENARIOS: u32 = 1;
const QUEUE_PAIRS: u32 = 2;
const MEMORY: u32 = 3;
const REQUESTS: u32 = 4;

/// Writes the whole file. If there are more than [`MAX_FAULTS`] faults, the first ones of every scenario are shown.
pub(in crate::report) fn write(out: &mut impl Write, records: &Records, time: TimeBase) -> io::Result<()> {
    let faults = chosen(records);
    let dropped = records.faults.len() - faults.len();
    let about = json!({ "faults_shown": faults.len(), "faults_left_out": dropped, "clock": time.clock() });
    write!(out, "{{\"displayTimeUnit\":\"ns\",\"otherData\":{about},\"traceEvents\":[")?;
    let mut events = Events { out, first: true };
    events.process(SCENARIOS, "scenarios")?;
    events.process(QUEUE_PAIRS, "NIC queue pairs: faults")?;
    events.process(MEMORY, "translation")?;
    events.process(REQUESTS, "NIC queue pairs: sampled requests")?;
    events.scenarios(records)?;
    events.faults(records, &faults)?;
    events.open_faults(&faults)?;
    events.invalidations(&records.invalidations)?;
    events.requests(records)?;
    writeln!(out, "\n]}}")
}

/// The faults to show, in the order of their starts.
fn chosen(records: &Records) -> Vec<FaultRecord> {
    let mut counts = vec![0; records.scenarios.len()];
    for fault in records.faults.iter() {
        counts[usize::from(fault.scenario)] += 1;
    }
    let mut left = fair_shares(&counts, MAX_FAULTS);
    let mut faults: Vec<_> = records
        .faults
        .iter()
        .filter(|fault| {
            let left = &mut left[usize::from(fault.scenario)];
            let take = *left > 0;
            *left -= usize::from(take);
            take
        })
        .collect();
    faults.sort_by_key(|fault| (fault.times.miss, fault.qpn, fault.iova));
    faults
}

/// The array of events.
struct Events<'a, W> {
    out: &'a mut W,
    first: bool,
}

impl<W: Write> Events<'_, W> {
    fn push(&mut self, event: &Value) -> io::Result<()> {
        let comma = if self.first { "" } else { "," };
        self.first = false;
        write!(self.out, "{comma}\n{event}")
    }

    fn process(&mut self, pid: u32, name: &str) -> io::Result<()> {
        self.push(&json!({"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}}))?;
        self.push(&json!({"ph": "M", "pid": pid, "name": "process_sort_index", "args": {"sort_index": pid}}))
    }

    fn thread(&mut self, pid: u32, tid: usize, name: &str) -> io::Result<()> {
        self.push(
            &json!({"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}}),
        )?;
        self.push(&json!({"ph": "M", "pid": pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}))
    }

    fn scenarios(&mut self, records: &Records) -> io::Result<()> {
        self.thread(SCENARIOS, 1, "scenario")?;
        for span in records.scenarios.iter().skip(1) {
            let name = format!("{} ({})", span.name, span.mode);
            let (ts, dur) = (micros(span.begin), micros(span.end.saturating_sub(span.begin)));
            self.push(&json!({"ph": "X", "pid": SCENARIOS, "tid": 1, "cat": "scenario", "name": name, "ts": ts, "dur": dur}))?;
        }
        Ok(())
    }

    fn faults(&mut self, records: &Records, faults: &[FaultRecord]) -> io::Result<()> {
        let mut tracks = Tracks::default();
        let placed: Vec<Track> = faults.iter().map(|fault| tracks.place(fault)).collect();
        let mut tids = HashMap::new();
        for (index, track) in tracks.sorted().enumerate() {
            let name = match track.number {
                0 => format!("QP {:#x}", track.qpn),
                more => format!("QP {:#x} ({})", track.qpn, more + 1),
            };
            self.thread(QUEUE_PAIRS, index + 1, &name)?;
            tids.insert(track, index + 1);
        }
        for (fault, track) in faults.iter().zip(placed) {
            let span = &records.scenarios[usize::from(fault.scenario)];
            self.fault(tids[&track], fault, &format!("{} ({})", span.name, span.mode))?;
        }
        Ok(())
    }

    /// Writes the outer slice first: viewers nest slices with the same start in the order of the file.
    fn fault(&mut self, tid: usize, fault: &FaultRecord, scenario: &str) -> io::Result<()> {
        let times = &fault.times;
        let access = if fault.write { "write" } else { "read" };
        let args = json!({
            "scenario": scenario,
            "outcome": fault.outcome.name(),
            "qpn": format!("{:#x}", fault.qpn),
            "pasid": fault.space.pasid().map(|pasid| pasid.to_string()),
            "key": fault.space.key().map(|key| format!("{key:#x}")),
            "iova": fault.iova.to_string(),
            "group": fault.group.map(|group| format!("{:#x}", group.get())),
            "page requests": fault.requests,
        });
        let (ts, dur) = (micros(times.miss), micros(times.total()));
        let name = format!("{access} fault: {}", fault.outcome.name());
        self.push(&json!({"ph": "X", "pid": QUEUE_PAIRS, "tid": tid, "cat": "fault", "name": name, "ts": ts, "dur": dur, "args": args}))?;
        self.stages((QUEUE_PAIRS, tid), fault, u64::MAX)
    }

    /// The stages of a fault, cut off at the end of the slice around them.
    fn stages(&mut self, track: (u32, usize), fault: &FaultRecord, limit: u64) -> io::Result<()> {
        let times = &fault.times;
        if times.round > times.miss {
            self.segment(track, "page gone again: earlier rounds", times.miss, times.round.min(limit))?;
        }
        for Segment { name, from, to, .. } in times.segments().filter(|segment| segment.from < limit) {
            self.segment(track, name, from, to.min(limit))?;
        }
        Ok(())
    }

    fn segment(&mut self, (pid, tid): (u32, usize), name: &str, from: u64, to: u64) -> io::Result<()> {
        let (ts, dur) = (micros(from), micros(to - from));
        self.push(
            &json!({"ph": "X", "pid": pid, "tid": tid, "cat": "stage", "name": name, "ts": ts, "dur": dur}),
        )
    }

    /// One track for each queue pair, which executes one request at a time.
    fn requests(&mut self, records: &Records) -> io::Result<()> {
        let faults = FaultsByQueuePair::of(records);
        let mut sorted = records.requests.clone();
        sorted.sort_by_key(|request| (request.event.qpn, request.event.fetched_ns));
        for (tid, group) in (1..).zip(sorted.chunk_by(|a, b| a.event.qpn == b.event.qpn)) {
            let qpn = group.first().map_or(0, |request| request.event.qpn);
            self.thread(REQUESTS, tid, &format!("QP {qpn:#x}"))?;
            let mut free = 0;
            for request in group {
                self.request(tid, request, faults.first(request), free)?;
                free = request.event.end_ns;
            }
        }
        Ok(())
    }

    /// A request whose doorbell precedes the end of the one before is shown from that end on.
    fn request(
        &mut self,
        tid: usize,
        request: &RequestRecord,
        fault: Option<&FaultRecord>,
        free: u64,
    ) -> io::Result<()> {
        let event = &request.event;
        let args = json!({
            "qpn": format!("{:#x}", event.qpn),
            "request": event.index,
            "bytes": event.bytes,
            "status": event.status,
            "translator": event.translator.map(|translator| translator.name()),
            "faults": event.faults,
            "doorbell to end, ns": request.total(),
            "interrupted": event.interrupted,
        });
        let begin = request.begin().max(free).min(event.end_ns);
        let (ts, dur) = (micros(begin), micros(event.end_ns - begin));
        let name = format!("{} of {} bytes", request.operation(), event.bytes);
        self.push(&json!({"ph": "X", "pid": REQUESTS, "tid": tid, "cat": "request", "name": name, "ts": ts, "dur": dur, "args": args}))?;
        for (name, from, to) in request.steps().filter(|&(_, _, to)| to > begin) {
            let from = from.max(begin);
            self.segment((REQUESTS, tid), name, from, to)?;
            // The fault ends when its page's bytes have landed, which is in a later step.
            if let Some(fault) = fault.filter(|fault| (from..to).contains(&fault.times.miss)) {
                self.stages((REQUESTS, tid), fault, to)?;
            }
        }
        Ok(())
    }

    /// A counter of open faults.
    fn open_faults(&mut self, faults: &[FaultRecord]) -> io::Result<()> {
        let begins = faults.iter().map(|fault| (fault.times.miss, 1i64));
        let ends = faults.iter().map(|fault| (fault.times.end, -1i64));
        let mut steps: Vec<_> = begins.chain(ends).collect();
        steps.sort_unstable_by_key(|&(at, step)| (at, -step));
        let mut open = 0;
        for (at, step) in steps {
            open += step;
            self.push(&json!({"ph": "C", "pid": MEMORY, "name": "open faults", "ts": micros(at), "args": {"faults": open}}))?;
        }
        Ok(())
    }

    fn invalidations(&mut self, invalidations: &[Invalidation]) -> io::Result<()> {
        self.thread(MEMORY, 1, "invalidations")?;
        let shown = invalidations.len().min(MAX_INVALIDATIONS);
        let mut sorted = invalidations[..shown].to_vec();
        sorted.sort_by_key(|invalidation| invalidation.start);
        for Invalidation { start, duration, space, iova, size_shift } in sorted {
            let bytes =
                if size_shift >= 63 { "everything".into() } else { format!("{:#x}", 1u64 << size_shift) };
            let args = json!({
                "pasid": space.pasid().map(|pasid| pasid.to_string()),
                "key": space.key().map(|key| format!("{key:#x}")),
                "iova": iova.to_string(),
                "bytes": bytes,
                "took_ns": duration,
            });
            self.push(&json!({"ph": "i", "s": "t", "pid": MEMORY, "tid": 1, "cat": "invalidation", "name": "invalidate", "ts": micros(start), "args": args}))?;
        }
        Ok(())
    }
}

/// Microseconds, the format's unit; exact to the nanosecond for the first hundred days.
fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use refault_bus::probe::RequestEvent;

    use super::*;
    use crate::report::synthetic::{Shape, Synthetic};

    fn events_of(records: &Records) -> Vec<Value> {
        let mut text = Vec::new();
        write(&mut text, records, TimeBase::Real).unwrap();
        let file: Value = serde_json::from_slice(&text).unwrap();
        file["traceEvents"].as_array().unwrap().clone()
    }

    /// Begin and end in nanoseconds.
    fn span(event: &Value) -> (i64, i64) {
        let ns = |field: &str| (event[field].as_f64().unwrap() * 1000.0).round() as i64;
        (ns("ts"), ns("ts") + ns("dur"))
    }

    #[test]
    fn each_event_has_the_fields_of_its_phase() {
        for shape in Shape::ALL {
            for event in events_of(&Synthetic::new(shape, 200).records()) {
                let has = |fields: &[&str]| fields.iter().all(|field| !event[*field].is_null());
                assert!(has(&["ph", "pid", "name"]), "{event}");
                match event["ph"].as_str().unwrap() {
                    "X" => assert!(has(&["tid", "ts", "dur", "cat"]) && event["dur"].as_f64() >= Some(0.0)),
                    "M" => assert!(has(&["args"])),
                    "i" => assert!(has(&["tid", "ts"]) && event["s"] == "t"),
                    "C" => assert!(has(&["ts", "args"])),
                    other => panic!("phase {other}"),
                }
            }
        }
    }

    #[test]
    fn slices_of_a_track_nest_and_time_goes_on() {
        let events = events_of(&Synthetic::new(Shape::Mixed, 2000).records());
        let mut open: HashMap<(u64, u64), Vec<(i64, i64)>> = HashMap::new();
        let mut slices = 0;
        for event in events.iter().filter(|event| event["ph"] == "X") {
            let (from, to) = span(event);
            let stack =
                open.entry((event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap())).or_default();
            if event["cat"] == "fault" {
                assert!(stack.last().is_none_or(|outer| outer.1 <= from), "overlap at {from}");
                stack.clear();
                stack.push((from, to));
            } else if event["cat"] == "stage" {
                let (outer_from, outer_to) = stack[0];
                let before = stack[1..].last().map_or(outer_from, |inner| inner.1);
                assert!(from >= before && to <= outer_to, "{event} in {outer_from}..{outer_to}");
                stack.push((from, to));
            }
            slices += 1;
        }
        assert!(slices > 2000 * 6);
    }

    #[test]
    fn the_counter_starts_and_ends_at_zero() {
        let events = events_of(&Synthetic::new(Shape::Mixed, 500).records());
        let counts: Vec<_> =
            events.iter().filter(|e| e["ph"] == "C").map(|e| e["args"]["faults"].as_i64().unwrap()).collect();
        assert_eq!((counts.first(), counts.last()), (Some(&1), Some(&0)));
        assert!(counts.iter().all(|&count| count >= 0));
    }

    #[test]
    fn a_long_run_shows_something_of_every_scenario() {
        let records = Synthetic::new(Shape::Mixed, 30_000).records();
        let faults = chosen(&records);
        assert_eq!(faults.len(), MAX_FAULTS);
        for scenario in 1..records.scenarios.len() as u16 {
            assert!(faults.iter().filter(|fault| fault.scenario == scenario).count() > 1000);
        }
    }

    #[test]
    fn a_sampled_request_has_its_steps_and_the_stages_of_its_fault_nested() {
        let mut records = Synthetic::new(Shape::Uniform, 50).records();
        let fault = records.faults.iter().next().unwrap();
        let times = fault.times;
        let event = RequestEvent {
            qpn: fault.qpn,
            doorbell_ns: Some(times.miss - 1),
            fetched_ns: times.miss,
            translated_ns: times.matched,
            landed_ns: Some(times.end),
            end_ns: times.end + 10,
            ..RequestEvent::default()
        };
        // The doorbell of the next one rang before this one ended.
        let next = RequestEvent {
            fetched_ns: times.end + 10,
            translated_ns: None,
            landed_ns: None,
            end_ns: times.end + 30,
            ..event
        };
        records.requests = [event, next].map(|event| RequestRecord { scenario: 0, event }).to_vec();
        let events = events_of(&records);
        let of_requests = |e: &&Value| e["ph"] == "X" && e["pid"] == REQUESTS;
        let slices: Vec<_> = events.iter().filter(of_requests).collect();
        let mut open: Vec<(i64, i64)> = Vec::new();
        for (from, to) in slices.iter().map(|slice| span(slice)) {
            open.retain(|outer| outer.1 > from);
            assert!(open.iter().all(|outer| outer.0 <= from && to <= outer.1), "{from}..{to} in {open:?}");
            open.push((from, to));
        }
        assert_eq!(slices.iter().filter(|slice| slice["cat"] == "request").count(), 2);
        assert!(slices.iter().any(|slice| slice["name"] == "guest handles fault"), "{slices:#?}");
    }

    #[test]
    fn an_empty_run_is_a_valid_file() {
        let events = events_of(&Synthetic::new(Shape::Uniform, 0).records());
        assert!(events.iter().all(|event| event["cat"] != "fault"));
    }
}
