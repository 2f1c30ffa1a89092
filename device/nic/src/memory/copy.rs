//! Copying between two scatter/gather lists: translate both ends, copy, in one guarded step.

use refault_bus::Gpa;
use refault_bus::bits::{low_u16, low_u32};
use refault_bus::dma::CopyPiece;

use crate::cause::Cause;
use crate::memory::access::Stopped;
use crate::memory::access::{AccessError, Extent};
use crate::memory::atc::Atc;
use crate::memory::list::{Cursor, List, Track};
use crate::memory::port::Port;
use crate::verbs::End;

/// Most bytes copied before an invalidation that waits gets its turn.
pub const COPY_CHUNK: u64 = 64 << 10;

/// Copies page by page what could not be copied in one piece: the run may cross two pieces of memory, or one of its
/// pages is not memory, and the end that it belongs to must be named.
#[cold]
fn copy_slowly(port: &Port<'_>, run: &CopyPiece, ends: (End, End)) -> Result<(), Stopped> {
    let memory = &port.fabric().memory;
    let mut done = 0;
    while done < run.len {
        let (from, to) = (run.src.0.wrapping_add(done), run.dst.0.wrapping_add(done));
        let step = (0x1000 - (from & 0xfff)).min(0x1000 - (to & 0xfff)).min(run.len - done);
        if memory.copy(Gpa(from), Gpa(to), step).is_err() {
            let readable = memory.read(Gpa(from), &mut [0; 0x1000][..usize::from(low_u16(step))]).is_ok();
            let end = if readable { ends.1 } else { ends.0 };
            return Err(Stopped { end, error: AccessError::Denied(Cause::NotMemory) });
        }
        done += step;
    }
    Ok(())
}

/// Runs of one chunk: pages at different offsets make two runs of each, at most.
const RUNS: usize = 2 * low_u32(COPY_CHUNK >> 12) as usize + 2;

/// What one step copies. All of it is translated first and copied then: a copy pushes what translation needs
/// out of the processor's first-level cache.
struct Plan {
    runs: Vec<CopyPiece>,
}

impl Plan {
    /// Adds a copy, joined to the one before if they are neighbours at both ends; `false` if there is no room.
    #[inline]
    fn add(&mut self, src: Gpa, dst: Gpa, len: u64) -> bool {
        if let Some(last) = self.runs.last_mut()
            && last.src.0.wrapping_add(last.len) == src.0
            && last.dst.0.wrapping_add(last.len) == dst.0
        {
            last.len += len;
            return true;
        }
        let room = self.runs.len() < RUNS;
        if room {
            self.runs.push(CopyPiece { src, dst, len });
        }
        room
    }

    fn copy(&self, port: &Port<'_>, ends: (End, End)) -> Result<(), Stopped> {
        let mut rest = &self.runs[..];
        loop {
            let done = port.fabric().memory.copy_all(rest);
            let Some((failed, behind)) = rest.get(done..).and_then(<[CopyPiece]>::split_first) else {
                return Ok(());
            };
            copy_slowly(port, failed, ends)?;
            rest = behind;
        }
    }
}

/// Plans as many bytes as are in recently used pages at both ends, up to `limit` of two pieces. This loop decides how
/// fast warm data moves.
fn plan_warm(atc: &Atc, from: &Track, to: &Track, limit: u64, plan: &mut Plan) -> u64 {
    let limit = limit.min(from.rest).min(to.rest);
    let mut reads = atc.walk(from.space, from.at, from.write);
    let mut writes = atc.walk(to.space, to.at, to.write);
    let mut done = 0;
    while done < limit {
        let (read_at, write_at) = (from.at.wrapping_add(done), to.at.wrapping_add(done));
        let (Some(read), Some(written)) = (reads.find(read_at), writes.find(write_at)) else { break };
        // By pages, not by what was found: so the next lookup need not wait for this one.
        let bytes = (0x1000 - (read_at & 0xfff)).min(0x1000 - (write_at & 0xfff)).min(limit - done);
        if !plan.add(read, written, bytes) {
            break;
        }
        done += bytes;
    }
    done
}

/// Plans a step inside two pieces: warm pages if there are any, else one that must be translated. Zero if the
/// plan is full.
fn plan_step(
    port: &mut Port<'_>,
    source: &mut Cursor<'_, '_>,
    target: &mut Cursor<'_, '_>,
    limit: u64,
    plan: &mut Plan,
) -> Result<u64, Stopped> {
    source.resolve(port)?;
    target.resolve(port)?;
    if let (Some(from), Some(to)) = (source.track(), target.track()) {
        let warm = plan_warm(&port.shard().atc, &from, &to, limit, plan);
        if warm > 0 {
            return Ok(warm);
        }
    }
    let (read, written) = (source.extent(port)?, target.extent(port)?);
    let bytes = read.bytes.min(written.bytes).min(limit);
    Ok(if plan.add(read.gpa, written.gpa, bytes) { bytes } else { 0 })
}

/// Plans up to `limit` bytes. Returns how many, and what stopped it.
fn plan_chunk(
    port: &mut Port<'_>,
    source: &mut Cursor<'_, '_>,
    target: &mut Cursor<'_, '_>,
    limit: u64,
    plan: &mut Plan,
) -> (u64, Option<Stopped>) {
    let mut planned = 0;
    while planned < limit {
        match plan_step(port, source, target, limit - planned, plan) {
            Ok(0) => break,
            Ok(bytes) => {
                source.advance(bytes);
                target.advance(bytes);
                planned += bytes;
            }
            Err(stopped) => return (planned, Some(stopped)),
        }
    }
    (planned, None)
}

/// Copies up to `limit` bytes, from `done` bytes into both lists, in chunks, and as long as no invalidation waits.
/// Returns how many.
///
/// # Errors
///
/// One end stopped the copy before the first byte.
pub(crate) fn copy(
    port: &mut Port<'_>,
    from: &List<'_>,
    to: &List<'_>,
    done: u32,
    limit: u32,
) -> Result<u32, Stopped> {
    let mut plan = Plan { runs: std::mem::take(&mut port.shard().pieces) };
    let copied = copy_chunks(port, (from, to), done, u64::from(limit), &mut plan);
    port.shard().pieces = plan.runs;
    copied
}

fn copy_chunks(
    port: &mut Port<'_>,
    (from, to): (&List<'_>, &List<'_>),
    done: u32,
    limit: u64,
    plan: &mut Plan,
) -> Result<u32, Stopped> {
    let (mut source, mut target) = (from.at(done), to.at(done));
    let mut moved = 0;
    loop {
        plan.runs.clear();
        let chunk = (limit - moved).min(COPY_CHUNK);
        let (planned, obstacle) = plan_chunk(port, &mut source, &mut target, chunk, plan);
        if planned > 0 {
            port.note_translated();
        }
        plan.copy(port, (from.end, to.end))?;
        moved += planned;
        port.shard().stats.bytes_copied += planned;
        match obstacle {
            Some(stopped) if moved == 0 => return Err(stopped),
            None if moved < limit && planned > 0 && !port.is_wanted() => {}
            _ => return Ok(low_u32(moved)),
        }
    }
}

/// Writes `bytes` to the start of a list; all or nothing.
pub(crate) fn scatter(port: &mut Port<'_>, bytes: &[u8], to: &List<'_>) -> Result<(), Stopped> {
    let extents = to.extents(port, bytes.len() as u64)?;
    write_extents(port, bytes, &extents).map_err(|error| to.stopped(error))
}

/// Reads into `buffer` from memory found before, under the same guard.
pub(crate) fn read_extents(
    port: &Port<'_>,
    buffer: &mut [u8],
    extents: &[Extent],
) -> Result<(), AccessError> {
    let mut rest = buffer;
    for extent in extents {
        let (now, later) = rest.split_at_mut(extent.within(rest.len()));
        port.fabric().memory.read(extent.gpa, now)?;
        rest = later;
    }
    Ok(())
}

/// Writes `bytes` to memory found before, under the same guard.
pub(crate) fn write_extents(
    port: &mut Port<'_>,
    bytes: &[u8],
    extents: &[Extent],
) -> Result<(), AccessError> {
    let mut rest = bytes;
    for extent in extents {
        let (now, later) = rest.split_at(extent.within(rest.len()));
        port.fabric().memory.write(extent.gpa, now)?;
        rest = later;
    }
    port.shard().stats.bytes_copied += bytes.len() as u64;
    Ok(())
}
