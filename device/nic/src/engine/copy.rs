//! Copying between two scatter/gather lists: translate both ends, copy, in one guarded step.

use refault_abi::queue::Sge;
use refault_bus::Gpa;

use crate::cause::Cause;
use crate::dma::{AccessError, Extent, PageMiss, Port};
use crate::qp::End;
use crate::region::{Access, Backing, Region};

/// Most bytes copied before an invalidation that waits gets its turn.
pub(crate) const CHUNK: u32 = 64 << 10;

/// One end of a copy: pieces of memory, and on whose behalf they are accessed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'a> {
    pub(crate) pieces: &'a [Sge],
    pub(crate) pd: u32,
    /// ACCESS_* that each piece's region must have.
    pub(crate) rights: u32,
    /// It is written.
    pub(crate) write: bool,
    pub(crate) end: End,
}

/// A copy stopped at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    pub(crate) end: End,
    pub(crate) error: AccessError,
}

impl<'a> List<'a> {
    fn access(&self, piece: &Sge) -> Access {
        Access {
            key: piece.lkey,
            pd: self.pd,
            addr: piece.addr,
            length: u64::from(piece.length),
            rights: self.rights,
        }
    }

    /// Checks keys, bounds and rights of every piece; empty ones name no memory.
    pub(crate) fn check(&self, port: &mut Port<'_>) -> Result<(), Cause> {
        let mut pieces = self.pieces.iter().filter(|piece| piece.length > 0);
        pieces.try_for_each(|piece| port.region(&self.access(piece)).map(|_| ()))
    }

    /// A place in the list, `offset` bytes from its start.
    fn at(&self, offset: u32) -> Cursor<'_, 'a> {
        let (mut index, mut inside) = (0, offset);
        while let Some(piece) = self.pieces.get(index).filter(|piece| piece.length <= inside) {
            inside -= piece.length;
            index += 1;
        }
        Cursor { list: self, index, inside, region: None }
    }

    fn stopped(&self, error: impl Into<AccessError>) -> Stopped {
        Stopped { end: self.end, error: error.into() }
    }

    /// Pages of a process behind the one at `offset`, in the same piece, that are missing too: at most
    /// `count`, each with the offset of its first byte.
    pub(crate) fn missing_behind(
        &self,
        port: &mut Port<'_>,
        offset: u32,
        count: u32,
    ) -> Vec<(PageMiss, u32)> {
        let mut missing = Vec::new();
        let cursor = self.at(offset);
        let Some(piece) = self.pieces.get(cursor.index) else { return missing };
        let Ok(region) = port.region(&self.access(piece)) else { return missing };
        let Backing::Process(pasid) = region.backing else { return missing };
        let start = piece.addr.wrapping_add(u64::from(cursor.inside));
        let rest = u64::from(piece.length - cursor.inside);
        for page in 1..=u64::from(count) {
            let ahead = (page << 12) - (start & 0xfff);
            if ahead >= rest {
                break;
            }
            match port.translate(Some(pasid), refault_bus::Iova(start.wrapping_add(ahead)), self.write) {
                Err(AccessError::Miss(miss)) => missing.push((miss, offset + ahead as u32)),
                Err(AccessError::Denied(_)) => break,
                Ok(_) => {}
            }
        }
        missing
    }

    /// The memory of the first `length` bytes, piece by piece.
    pub(crate) fn extents(&self, port: &mut Port<'_>, length: u32) -> Result<Vec<Extent>, Stopped> {
        let mut extents = Vec::new();
        let mut cursor = self.at(0);
        let mut found = 0;
        while found < length {
            let extent = cursor.extent(port)?;
            let bytes = extent.bytes.min(u64::from(length - found));
            extents.push(Extent { bytes, ..extent });
            cursor.advance(bytes as u32);
            found += bytes as u32;
        }
        Ok(extents)
    }
}

/// A place in a list. It holds the region of its piece, so it must not outlive the guard.
struct Cursor<'l, 'a> {
    list: &'l List<'a>,
    index: usize,
    inside: u32,
    region: Option<Region>,
}

impl Cursor<'_, '_> {
    /// The memory from here on, to the end of the piece at most.
    fn extent(&mut self, port: &mut Port<'_>) -> Result<Extent, Stopped> {
        let list = self.list;
        let piece = list.pieces.get(self.index).ok_or_else(|| list.stopped(Cause::Bounds))?;
        let region = match &self.region {
            Some(region) => region,
            None => {
                let region = port.region(&list.access(piece)).map_err(|cause| list.stopped(cause))?;
                self.region.insert(region)
            }
        };
        let addr = piece.addr.wrapping_add(u64::from(self.inside));
        let extent = port.locate(region, addr, list.write).map_err(|error| list.stopped(error))?;
        Ok(Extent { bytes: extent.bytes.min(u64::from(piece.length - self.inside)), ..extent })
    }

    /// Moves on, inside the piece or to the start of the next one that is not empty.
    fn advance(&mut self, bytes: u32) {
        self.inside += bytes;
        while let Some(piece) = self.list.pieces.get(self.index).filter(|piece| piece.length <= self.inside) {
            self.inside -= piece.length;
            self.index += 1;
            self.region = None;
        }
    }
}

/// Neighbouring copies gathered into one.
#[derive(Default)]
struct Run {
    from: u64,
    to: u64,
    bytes: u64,
}

impl Run {
    /// Adds a copy, if it continues this one at both ends.
    fn extend(&mut self, from: Gpa, to: Gpa, bytes: u64) -> bool {
        let continues =
            self.from.wrapping_add(self.bytes) == from.0 && self.to.wrapping_add(self.bytes) == to.0;
        if continues && self.bytes > 0 {
            self.bytes += bytes;
        }
        continues && self.bytes > 0
    }

    fn copy(&self, port: &Port<'_>, ends: (End, End)) -> Result<(), Stopped> {
        let memory = &port.fabric().memory;
        if memory.copy(Gpa(self.from), Gpa(self.to), self.bytes).is_ok() {
            return Ok(());
        }
        // Pages may be neighbours across two pieces of memory; and the one that is none must be named.
        let mut done = 0;
        while done < self.bytes {
            let (from, to) = (self.from.wrapping_add(done), self.to.wrapping_add(done));
            let step = (0x1000 - (from & 0xfff)).min(0x1000 - (to & 0xfff)).min(self.bytes - done);
            if memory.copy(Gpa(from), Gpa(to), step).is_err() {
                let readable = memory.read(Gpa(from), &mut [0; 0x1000][..step as usize]).is_ok();
                let end = if readable { ends.1 } else { ends.0 };
                return Err(Stopped { end, error: AccessError::Denied(Cause::NotMemory) });
            }
            done += step;
        }
        Ok(())
    }
}

/// Copies up to `limit` bytes, `done` bytes into both lists. Says how many; an obstacle counts only if there
/// were none.
pub(crate) fn copy(
    port: &mut Port<'_>,
    from: &List<'_>,
    to: &List<'_>,
    done: u32,
    limit: u32,
) -> Result<u32, Stopped> {
    let limit = limit.min(CHUNK);
    let (mut source, mut target) = (from.at(done), to.at(done));
    let (mut run, mut moved) = (Run::default(), 0);
    let obstacle = loop {
        if moved == limit {
            break None;
        }
        let found = source.extent(port).and_then(|source| Ok((source, target.extent(port)?)));
        let (read, written) = match found {
            Ok(found) => found,
            Err(stopped) => break Some(stopped),
        };
        let bytes = read.bytes.min(written.bytes).min(u64::from(limit - moved));
        if !run.extend(read.gpa, written.gpa, bytes) {
            if run.bytes > 0 {
                run.copy(port, (from.end, to.end))?;
            }
            run = Run { from: read.gpa.0, to: written.gpa.0, bytes };
        }
        source.advance(bytes as u32);
        target.advance(bytes as u32);
        moved += bytes as u32;
    };
    if run.bytes > 0 {
        run.copy(port, (from.end, to.end))?;
    }
    port.shard().stats.bytes_copied += u64::from(moved);
    match obstacle {
        Some(stopped) if moved == 0 => Err(stopped),
        _ => Ok(moved),
    }
}

/// Writes `bytes` to the start of a list; all or nothing.
pub(crate) fn scatter(port: &mut Port<'_>, bytes: &[u8], to: &List<'_>) -> Result<(), Stopped> {
    let extents = to.extents(port, bytes.len() as u32)?;
    write_extents(port, bytes, &extents).map_err(|error| to.stopped(error))
}

/// Writes `bytes` to memory found before, under the same guard.
pub(crate) fn write_extents(
    port: &mut Port<'_>,
    bytes: &[u8],
    extents: &[Extent],
) -> Result<(), AccessError> {
    let mut rest = bytes;
    for extent in extents {
        let (now, later) = rest.split_at(rest.len().min(extent.bytes as usize));
        port.fabric().memory.write(extent.gpa, now)?;
        rest = later;
    }
    port.shard().stats.bytes_copied += bytes.len() as u64;
    Ok(())
}
