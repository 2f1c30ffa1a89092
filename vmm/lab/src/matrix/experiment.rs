//! One cell: a program streams verified requests into a registered file, the operation happens in the middle, and every
//! byte is looked at afterwards.

use refault_model::scheduler::Scheduler;

use super::cell::{Cell, Ending, Requests};
use super::contents::{Possible, WRITTEN, difference, foreign, written};
use super::operation::Operation;
use super::row::Row;
use super::session::{Access, Done};
use super::stage::{Reference, Stage, Which};

/// Versions of what the program writes: before the operation, in flight, after it.
const BEFORE: u32 = 2;
const IN_FLIGHT: u32 = 3;
const AFTER: u32 = 4;
/// The page whose pin is forgotten, where one is.
const LEAKED_PAGE: u64 = 7;

/// What a cell counts while it runs.
#[derive(Default)]
struct Counts {
    lost: u64,
    landed: u64,
    leaked: u64,
    stale: u64,
    unnoticed: u64,
    lost_in_crash: u64,
}

/// Plays one cell.
pub fn run(row: Row, operation: Operation) -> anyhow::Result<Cell> {
    let mut stage = Stage::set(row, operation)?;
    let registered = stage.program.register(0..operation.registered(), !operation.reads_only());
    let registration = Ending::of(&registered)?;
    let leaked_pins = leak_a_pin(&stage, row);
    let mut counts = Counts::default();
    let pages = operation.registered().min(super::operation::HOLE.start);
    let before = stream(&mut stage, operation, pages, BEFORE, &mut counts)?;
    let early = put_in_flight(&mut stage, operation, row)?;
    let earlier = stage.reference.clone();
    let began = stage.world.now_ns();
    let performed = operation.perform(&mut stage);
    let waited_ns = stage.world.now_ns() - began;
    let outcome = Ending::of(&performed)?;
    stage.world.act();
    let late = stage.program.drain()?;
    let mut during = account(&early);
    late.iter().for_each(|done| count(&mut during, done));
    allow_for(&mut stage, operation, outcome, &late);
    check_reads(&mut stage, &earlier, &late, &mut counts);
    look(&mut stage, &mut counts)?;
    let again = register_again(&mut stage, operation)?;
    let reached = reach(&stage, operation, again);
    let after = stream(&mut stage, operation, reached, AFTER, &mut counts)?;
    look(&mut stage, &mut counts)?;
    crash(&mut stage, reached, &after, &mut counts)?;
    let (signals, killed) = (stage.program.signals(), stage.program.was_killed());
    let mut broken = stage.strike(leaked_pins);
    let Counts { lost, landed, leaked, stale, unnoticed, lost_in_crash } = counts;
    if row.faults() && lost + landed + leaked + stale + lost_in_crash > 0 {
        broken.push("bytes went astray though the device faults".to_owned());
    }
    Ok(Cell {
        row,
        operation,
        setup: stage.setup_refused.take().map_or(Ok(Ending::Done), |error| Ending::of(&Err(error)))?,
        registration,
        outcome,
        waited_ns,
        signals,
        killed,
        before,
        during,
        after,
        again,
        faults: stage.world.machine.faults_served(),
        lost,
        landed,
        leaked,
        stale,
        unnoticed,
        lost_in_crash,
        broken,
    })
}

/// Somebody pins a page and forgets it, where the row says so; how many such pins there are.
fn leak_a_pin(stage: &Stage, row: Row) -> u64 {
    if row != Row::ShortPinLeaked || !stage.program.is_registered() {
        return 0;
    }
    let page = stage.program.page_of_memory(LEAKED_PAGE);
    u64::from(page.is_some_and(|gpa| stage.fs.pin(gpa, true)))
}

/// Reads and writes each page, and reads it again, one request after the other; if there is a region at all.
fn stream(
    stage: &mut Stage,
    operation: Operation,
    pages: u64,
    version: u32,
    counts: &mut Counts,
) -> anyhow::Result<Requests> {
    let mut requests = Requests::default();
    if !stage.program.is_registered() {
        return Ok(requests);
    }
    let kinds: &[Access] = if operation.reads_only() {
        &[Access::Read]
    } else {
        &[Access::Read, Access::Write(version), Access::Read]
    };
    for page in 0..pages {
        for &access in kinds {
            stage.program.recover()?;
            stage.program.post(page as usize, access, page)?;
            stage.world.act();
            let done = stage.program.drain()?;
            for done in &done {
                count(&mut requests, done);
                follow(&mut stage.reference, done, counts);
            }
            let earlier = stage.reference.clone();
            check_reads(stage, &earlier, &done, counts);
        }
    }
    Ok(requests)
}

/// The reference does what a request did, of which it is known when it ran.
fn follow(reference: &mut Reference, done: &Done, counts: &mut Counts) {
    let Access::Write(version) = done.access else { return };
    let bytes = written(version, done.page);
    match (reference.page(Which::Data, done.page), done.succeeded()) {
        (Some(page), true) => page.write(WRITTEN.start, &bytes),
        (Some(page), false) => page.may_write(WRITTEN.start, &bytes),
        // It was told that its bytes are in a file that does not have the page.
        (None, true) => counts.lost += bytes.len() as u64,
        (None, false) => {}
    }
}

/// Posts a request on each lane and lets the NIC look at the first two; the second finds its page gone from the tables, as
/// after reclaim. What is over by then.
fn put_in_flight(stage: &mut Stage, operation: Operation, row: Row) -> anyhow::Result<Vec<Done>> {
    if !stage.program.is_registered() {
        return Ok(Vec::new());
    }
    let pages = operation.in_flight();
    stage.fs.unmap(stage.data, &(pages[1]..pages[1] + 1))?;
    let access = if operation.reads_only() { Access::Read } else { Access::Write(IN_FLIGHT) };
    for (lane, &page) in pages.iter().enumerate() {
        stage.program.post(lane, access, page)?;
    }
    for _ in 0..2 {
        stage.world.machine.step();
    }
    let done = stage.program.drain()?;
    let expected = if row.faults() { 1 } else { 2 };
    if done.len() != expected {
        stage.world.fail(format!("{} requests were over before the operation, not {expected}", done.len()));
    }
    let mut unused = Counts::default();
    done.iter().for_each(|done| follow(&mut stage.reference, done, &mut unused));
    let earlier = stage.reference.clone();
    check_reads(stage, &earlier, &done, &mut unused);
    Ok(done)
}

/// The reference allows for requests that ran before the operation, after it, or, if they failed, perhaps not at all.
fn allow_for(stage: &mut Stage, operation: Operation, outcome: Ending, late: &[Done]) {
    for done in late {
        let Access::Write(version) = done.access else { continue };
        let bytes = written(version, done.page);
        let mut places = vec![(Which::Data, done.page)];
        if outcome.is_done() {
            places.extend(operation.places(done.page));
        }
        places.dedup();
        for (which, page) in places {
            if let Some(possible) = stage.reference.page(which, page) {
                possible.may_write(WRITTEN.start, &bytes);
            }
        }
    }
}

/// Looks at what was read: it must be what the page was when the request was posted, or what it is now.
fn check_reads(stage: &mut Stage, earlier: &Reference, all: &[Done], counts: &mut Counts) {
    let mut earlier = earlier.clone();
    for done in all.iter().filter(|done| done.access == Access::Read && done.succeeded()) {
        let now = stage.reference.page(Which::Data, done.page).cloned();
        let before = earlier.page(Which::Data, done.page).cloned();
        let mut possible = now.clone().or(before.clone()).unwrap_or_else(Possible::zeroes);
        before.iter().for_each(|before| possible.or(before));
        let nearest = possible.nearest(&done.data);
        let foreign = foreign(&done.data, nearest);
        counts.leaked += foreign;
        counts.stale += difference(nearest, &done.data).saturating_sub(foreign);
    }
}

fn look(stage: &mut Stage, counts: &mut Counts) -> anyhow::Result<()> {
    let (lost, landed) = stage.compare()?;
    counts.lost += lost;
    counts.landed += landed;
    Ok(())
}

/// A program that had let go registers again what there still is of the file.
fn register_again(stage: &mut Stage, operation: Operation) -> anyhow::Result<Option<Ending>> {
    if !stage.program.comes_back() {
        return Ok(None);
    }
    let Some(size) = stage.data_size() else { return Ok(None) };
    let pages = operation.registered().min(size);
    let registered = stage.program.register(0..pages, !operation.reads_only());
    Ok(Some(Ending::of(&registered)?))
}

/// How many pages the program uses after the operation: all that it registered.
fn reach(stage: &Stage, operation: Operation, again: Option<Ending>) -> u64 {
    let registered = operation.registered();
    match again {
        Some(_) => stage.data_size().map_or(0, |size| size.min(registered)),
        None => registered,
    }
}

/// Everything is written out as the policy wants it; then, what a crash would leave.
fn crash(stage: &mut Stage, reached: u64, after: &Requests, counts: &mut Counts) -> anyhow::Result<()> {
    let Some(size) = stage.data_size() else { return Ok(()) };
    if after.succeeded > 0 && stage.program.wrote() {
        for page in 0..reached.min(size) {
            counts.unnoticed += u64::from(!stage.fs.is_dirty(stage.data, page)?);
        }
    }
    if stage.policy.program_flushes() {
        for page in 0..reached.min(size) {
            if let Some(gpa) = stage.program.page_of_memory(page) {
                stage.fs.flush_by_user(gpa)?;
            }
        }
    }
    stage.fs.fsync(stage.data)?;
    for page in 0..size {
        let (now, then) = (stage.fs.read(stage.data, page)?, stage.fs.after_crash(stage.data, page)?);
        counts.lost_in_crash += difference(&now, &then);
    }
    Ok(())
}

fn account(all: &[Done]) -> Requests {
    let mut requests = Requests::default();
    all.iter().for_each(|done| count(&mut requests, done));
    requests
}

fn count(requests: &mut Requests, done: &Done) {
    match done.succeeded() {
        true => requests.succeeded += 1,
        false => *requests.failed.entry(done.cause).or_default() += 1,
    }
}
