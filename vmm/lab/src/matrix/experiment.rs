//! One cell: a program streams verified requests into a registered file, the operation happens in between, and every byte
//! is checked afterwards.

use refault_bus::bits::index;
use refault_model::scheduler::Scheduler;

use super::cell::{Cell, Ending, RequestCounts};
use super::contents::{PageCandidates, WRITTEN, difference, foreign, written};
use super::operation::FileOperation;
use super::queues::{CompletedRequest, PageAccess};
use super::row::PolicyRow;
use super::testbed::{FileRole, Reference, Testbed};

/// Versions of the program's writes: before the operation, in flight, and after it.
const BEFORE: u32 = 2;
const IN_FLIGHT: u32 = 3;
const AFTER: u32 = 4;
/// The page whose pin is leaked.
const LEAKED_PAGE: u64 = 7;

/// Counts of a cell while it runs; see [`Cell`].
#[derive(Default)]
struct Counts {
    lost: u64,
    landed: u64,
    leaked: u64,
    stale: u64,
    unnoticed: u64,
    lost_in_crash: u64,
}

/// Runs one cell.
///
/// # Errors
/// The model failed: a bug in refault.
pub fn run(row: PolicyRow, operation: FileOperation) -> anyhow::Result<Cell> {
    let mut testbed = Testbed::new(row, operation)?;
    let registered = testbed.program.register(0..operation.registered(), !operation.reads_only());
    let registration = Ending::of(&registered)?;
    let leaked_pins = leak_a_pin(&testbed, row);
    let mut counts = Counts::default();
    let pages = operation.registered().min(super::operation::HOLE.start);
    let before = stream(&mut testbed, operation, pages, BEFORE, &mut counts)?;
    let early = post_in_flight(&mut testbed, operation, row)?;
    let earlier = testbed.reference.clone();
    let began = testbed.simulation.now_ns();
    let performed = operation.perform(&mut testbed);
    let waited_ns = testbed.simulation.now_ns() - began;
    let outcome = Ending::of(&performed)?;
    testbed.simulation.act();
    let late = testbed.program.drain()?;
    let mut during = count_all(&early);
    late.iter().for_each(|done| count(&mut during, done));
    allow_late_writes(&mut testbed, operation, outcome, &late);
    check_reads(&mut testbed, &earlier, &late, &mut counts);
    compare_files(&mut testbed, &mut counts)?;
    let again = register_again(&mut testbed, operation)?;
    let reachable = reachable_pages(&testbed, operation, again);
    let after = stream(&mut testbed, operation, reachable, AFTER, &mut counts)?;
    compare_files(&mut testbed, &mut counts)?;
    crash(&mut testbed, reachable, &after, &mut counts)?;
    let (signals, killed) = (testbed.program.signals(), testbed.program.was_killed());
    let mut broken = testbed.tear_down(leaked_pins);
    let Counts { lost, landed, leaked, stale, unnoticed, lost_in_crash } = counts;
    if row.faults() && lost + landed + leaked + stale + lost_in_crash > 0 {
        broken.push("bytes were lost or misplaced although the device faults".to_owned());
    }
    Ok(Cell {
        row,
        operation,
        setup: testbed.setup_refused.take().map_or(Ok(Ending::Done), |error| Ending::of(&Err(error)))?,
        registration,
        outcome,
        waited_ns,
        signals,
        killed,
        before,
        during,
        after,
        again,
        faults: testbed.simulation.machine.faults_served(),
        lost,
        landed,
        leaked,
        stale,
        unnoticed,
        lost_in_crash,
        broken,
    })
}

/// Leaks a pin if the policy row says so; returns the number of leaked pins.
fn leak_a_pin(testbed: &Testbed, row: PolicyRow) -> u64 {
    if row != PolicyRow::ShortPinLeaked || !testbed.program.is_registered() {
        return 0;
    }
    let page = testbed.program.page_of_memory(LEAKED_PAGE);
    u64::from(page.is_some_and(|gpa| testbed.fs.pin(gpa, true)))
}

/// Reads, writes and reads again each page, one request at a time. Does nothing without a region.
fn stream(
    testbed: &mut Testbed,
    operation: FileOperation,
    pages: u64,
    version: u32,
    counts: &mut Counts,
) -> anyhow::Result<RequestCounts> {
    let mut requests = RequestCounts::default();
    if !testbed.program.is_registered() {
        return Ok(requests);
    }
    let kinds: &[PageAccess] = if operation.reads_only() {
        &[PageAccess::Read]
    } else {
        &[PageAccess::Read, PageAccess::Write(version), PageAccess::Read]
    };
    for page in 0..pages {
        for &access in kinds {
            testbed.program.recover()?;
            testbed.program.post(index(page), access, page)?;
            testbed.simulation.act();
            let done = testbed.program.drain()?;
            for done in &done {
                count(&mut requests, done);
                apply_write(&mut testbed.reference, done, counts);
            }
            let earlier = testbed.reference.clone();
            check_reads(testbed, &earlier, &done, counts);
        }
    }
    Ok(requests)
}

/// Applies a completed write to the reference when its order is known.
fn apply_write(reference: &mut Reference, done: &CompletedRequest, counts: &mut Counts) {
    let PageAccess::Write(version) = done.access else { return };
    let bytes = written(version, done.page);
    match (reference.page(FileRole::Data, done.page), done.succeeded()) {
        (Some(page), true) => page.write(WRITTEN.start, &bytes),
        (Some(page), false) => page.may_write(WRITTEN.start, &bytes),
        // It succeeded, but the file no longer has the page.
        (None, true) => counts.lost += bytes.len() as u64,
        (None, false) => {}
    }
}

/// Posts a request on each channel and lets the NIC process the first two; the second finds its page unmapped, as after
/// reclaim. Returns those that have completed.
fn post_in_flight(
    testbed: &mut Testbed,
    operation: FileOperation,
    row: PolicyRow,
) -> anyhow::Result<Vec<CompletedRequest>> {
    if !testbed.program.is_registered() {
        return Ok(Vec::new());
    }
    let pages = operation.in_flight();
    testbed.fs.unmap(testbed.data, &(pages[1]..pages[1] + 1))?;
    let access = if operation.reads_only() { PageAccess::Read } else { PageAccess::Write(IN_FLIGHT) };
    for (channel, &page) in pages.iter().enumerate() {
        testbed.program.post(channel, access, page)?;
    }
    for _ in 0..2 {
        testbed.simulation.machine.step();
    }
    let done = testbed.program.drain()?;
    let expected = if row.faults() { 1 } else { 2 };
    if done.len() != expected {
        testbed
            .simulation
            .fail(format!("{} requests completed before the operation, not {expected}", done.len()));
    }
    let mut unused = Counts::default();
    done.iter().for_each(|done| apply_write(&mut testbed.reference, done, &mut unused));
    let earlier = testbed.reference.clone();
    check_reads(testbed, &earlier, &done, &mut unused);
    Ok(done)
}

/// Extends the reference by the writes in flight during the operation: each may have run before it or after it, or, if it
/// failed, not at all.
fn allow_late_writes(
    testbed: &mut Testbed,
    operation: FileOperation,
    outcome: Ending,
    late: &[CompletedRequest],
) {
    for done in late {
        let PageAccess::Write(version) = done.access else { continue };
        let bytes = written(version, done.page);
        let mut places = vec![(FileRole::Data, done.page)];
        if outcome.is_done() {
            places.extend(operation.places(done.page));
        }
        places.dedup();
        for (role, page) in places {
            if let Some(possible) = testbed.reference.page(role, page) {
                possible.may_write(WRITTEN.start, &bytes);
            }
        }
    }
}

/// Checks data read by the device: it must be the page's contents when the request was posted, or its contents now.
fn check_reads(testbed: &mut Testbed, earlier: &Reference, all: &[CompletedRequest], counts: &mut Counts) {
    let mut earlier = earlier.clone();
    for done in all.iter().filter(|done| done.access == PageAccess::Read && done.succeeded()) {
        let now = testbed.reference.page(FileRole::Data, done.page).cloned();
        let before = earlier.page(FileRole::Data, done.page).cloned();
        let mut possible = now.clone().or(before.clone()).unwrap_or_else(PageCandidates::zeroes);
        before.iter().for_each(|before| possible.or(before));
        let nearest = possible.nearest(&done.data);
        let foreign = foreign(&done.data, nearest);
        counts.leaked += foreign;
        counts.stale += difference(nearest, &done.data).saturating_sub(foreign);
    }
}

fn compare_files(testbed: &mut Testbed, counts: &mut Counts) -> anyhow::Result<()> {
    let (lost, landed) = testbed.compare()?;
    counts.lost += lost;
    counts.landed += landed;
    Ok(())
}

/// Registers what is left of the file again, if the program had released its region and wants it back.
fn register_again(testbed: &mut Testbed, operation: FileOperation) -> anyhow::Result<Option<Ending>> {
    if !testbed.program.registers_again() {
        return Ok(None);
    }
    let Some(size) = testbed.data_size() else { return Ok(None) };
    let pages = operation.registered().min(size);
    let registered = testbed.program.register(0..pages, !operation.reads_only());
    Ok(Some(Ending::of(&registered)?))
}

/// How many pages the program uses after the operation: all that are registered.
fn reachable_pages(testbed: &Testbed, operation: FileOperation, again: Option<Ending>) -> u64 {
    let registered = operation.registered();
    match again {
        Some(_) => testbed.data_size().map_or(0, |size| size.min(registered)),
        None => registered,
    }
}

/// Flushes as the policy requires, then compares the file with its contents after a crash.
fn crash(
    testbed: &mut Testbed,
    pages: u64,
    after: &RequestCounts,
    counts: &mut Counts,
) -> anyhow::Result<()> {
    let Some(size) = testbed.data_size() else { return Ok(()) };
    if after.succeeded > 0 && testbed.program.wrote() {
        for page in 0..pages.min(size) {
            counts.unnoticed += u64::from(!testbed.fs.is_dirty(testbed.data, page)?);
        }
    }
    if testbed.policy.program_flushes() {
        for page in 0..pages.min(size) {
            if let Some(gpa) = testbed.program.page_of_memory(page) {
                testbed.fs.flush_by_user(gpa)?;
            }
        }
    }
    testbed.fs.fsync(testbed.data)?;
    for page in 0..size {
        let (now, then) = (testbed.fs.read(testbed.data, page)?, testbed.fs.after_crash(testbed.data, page)?);
        counts.lost_in_crash += difference(&now, &then);
    }
    Ok(())
}

fn count_all(all: &[CompletedRequest]) -> RequestCounts {
    let mut requests = RequestCounts::default();
    all.iter().for_each(|done| count(&mut requests, done));
    requests
}

fn count(requests: &mut RequestCounts, done: &CompletedRequest) {
    match done.succeeded() {
        true => requests.succeeded += 1,
        false => *requests.failed.entry(done.cause).or_default() += 1,
    }
}
