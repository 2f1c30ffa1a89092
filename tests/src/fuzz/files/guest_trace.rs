//! The trace of the guest's kernel: pages of its ring buffer, the layouts of its events, readings of clocks, counts.
//!
//! **Invariant.** Any files are read and merged with recorded faults. There are no more events than the pages have room for,
//! and no more requests than events. The faults keep all that the device recorded, and their segments add up.

use std::fs;

use refault_bus::{AddressSpace, Iova, Pasid, PrgIndex};
use refault_observe::trace::guest::GuestTrace;
use refault_observe::trace::{FaultOutcome, FaultRecord, Records, StageTimes};
use tempfile::tempdir;

use crate::fuzz::feed::Feed;

/// Bytes of a page of the ring buffer, and of the smallest event in it.
const PAGE: usize = 4096;
const EVENT_MIN: usize = 8;
/// Recorded faults.
const FAULTS: u64 = 8;
/// Time between them in nanoseconds.
const APART: u64 = 10_000;

const FORMATS: &str = "name: qi_submit\nID: 300\nformat:
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
\tfield:u64 qw0;\toffset:8;\tsize:8;\tsigned:0;
\tfield:u64 qw1;\toffset:16;\tsize:8;\tsigned:0;
name: taken\nID: 301\nformat:
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
\tfield:u32 pasid;\toffset:8;\tsize:4;\tsigned:0;
\tfield:u32 group;\toffset:12;\tsize:4;\tsigned:0;
\tfield:u64 address;\toffset:16;\tsize:8;\tsigned:0;
name: handling\nID: 302\nformat:
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
name: handled\nID: 303\nformat:
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
\tfield:u32 pasid;\toffset:8;\tsize:4;\tsigned:0;
\tfield:u32 group;\toffset:12;\tsize:4;\tsigned:0;
";

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let folder = tempdir().expect("a temporary folder");
    let write = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).expect("room");
    let shape = feed.byte();
    write("formats", if shape & 1 == 0 { FORMATS.as_bytes() } else { feed.bytes(255) });
    write("clocks", clocks(&mut feed, shape).as_bytes());
    write("trouble", feed.bytes(64));
    write("cpu0.stats", format!("overrun: {}\ndropped events: {}\n", feed.word(), feed.word()).as_bytes());
    let pages = 1 + usize::from(shape >> 6);
    let raw: Vec<u8> = (0..pages).flat_map(|_| page(&mut feed)).collect();
    write("cpu0.raw", &raw);
    let trace = GuestTrace::load(folder.path()).expect("the files can be read");
    let mut records = Records::empty(64);
    let faults: Vec<_> = (0..FAULTS).map(fault).collect();
    assert!(faults.iter().all(|fault| records.faults.push(fault)));
    let stages = trace.merge(0, &mut records);
    assert!(stages.events as usize <= pages * PAGE / EVENT_MIN && stages.requests <= stages.events);
    assert!(stages.split <= stages.requests.min(FAULTS) && stages.trouble.len() <= 16);
    assert!(!stages.line().is_empty());
    for (after, before) in records.faults.iter().zip(&faults) {
        let times = StageTimes { taken: None, handling: None, handled: None, ..after.times };
        assert_eq!(FaultRecord { times, ..after }, *before, "the device's part changed");
        let split = after.times.split();
        let parts = split.device + split.iommu + split.guest + split.again;
        assert_eq!(parts, before.times.total());
    }
}

/// Readings of both clocks: agreeing ones, or anything.
fn clocks(feed: &mut Feed<'_>, shape: u8) -> String {
    if shape & 2 != 0 {
        return String::from_utf8_lossy(feed.bytes(200)).into_owned();
    }
    let lead = feed.half();
    let readings = (0..u64::from(shape >> 2 & 7)).map(|index| {
        let at = index * APART * 2;
        let wide = u64::from(feed.byte());
        format!("{at} {} {}\n", at + wide / 2 + u64::from(lead), at + wide)
    });
    readings.collect()
}

/// A page: events, or anything.
fn page(feed: &mut Feed<'_>) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE);
    let (time, flags) = (feed.word(), feed.byte());
    let mut data = Vec::new();
    let count = feed.below(64);
    for _ in 0..count {
        match feed.below(8) {
            0 => data.extend(feed.word().to_le_bytes()),
            kind => data.extend(event(feed, 300 + kind as u16 % 4)),
        }
    }
    page.extend(time.to_le_bytes());
    let surplus = if flags & 8 != 0 { feed.word() } else { 0 };
    let used = surplus.wrapping_add(data.len() as u64);
    page.extend((used | u64::from(flags & 3) << 30).to_le_bytes());
    page.extend(data);
    page.extend(feed.word().to_le_bytes());
    page.resize(PAGE, flags);
    page
}

/// An event of 24 bytes, some nanoseconds after the one before.
fn event(feed: &mut Feed<'_>, id: u16) -> Vec<u8> {
    let (later, key) = (u32::from(feed.half()), u32::from(feed.byte()) % 10);
    let words = match id {
        300 => [u64::from(1u32) << 32 | 1 << 4 | 9, u64::from(key) << 3],
        _ => [u64::from(key) << 32 | 1, page_of(key.into()).0],
    };
    let mut event = (later << 5 | 6).to_le_bytes().to_vec();
    event.extend(id.to_le_bytes());
    event.extend([0, 0, feed.byte() & 3, 0, 0, 0]);
    event.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    event
}

fn page_of(index: u64) -> Iova {
    Iova(0x7f00_0000_0000 + index * 0x1000)
}

fn fault(index: u64) -> FaultRecord {
    let at = 1000 + index * APART;
    FaultRecord {
        scenario: 0,
        qpn: 1,
        space: AddressSpace::Process(Pasid::truncated(1)),
        iova: page_of(index),
        write: true,
        group: Some(PrgIndex::truncated(index)),
        requests: 1,
        outcome: FaultOutcome::Copied,
        times: StageTimes {
            miss: at,
            round: at,
            page_request: Some(at + 10),
            queued: Some(at + 20),
            interrupt: None,
            taken: None,
            handling: None,
            handled: None,
            response: Some(at + 9000),
            matched: Some(at + 9100),
            end: at + 9200,
        },
    }
}
