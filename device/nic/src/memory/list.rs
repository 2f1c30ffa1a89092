//! Scatter/gather lists: where the bytes of a message are, piece by piece.

use refault_bus::{Iova, Pasid};

use crate::cause::Cause;
use crate::memory::access::{AccessError, Extent, PageMiss, Stopped};
use crate::memory::atc::Space;
use crate::memory::port::Port;
use crate::memory::region::{Access, Backing, Shortcut};
use crate::verbs::{End, Piece};

/// One end of a copy: pieces of memory, and on whose behalf they are accessed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'a> {
    pub(crate) pieces: &'a [Piece],
    pub(crate) pd: u32,
    /// ACCESS_* that each piece's region must have.
    pub(crate) rights: u32,
    /// It is written.
    pub(crate) write: bool,
    pub(crate) end: End,
}

/// What a request wants behind a page that is missing.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// Of a process: further pages that are missing, each with the offset of its first byte in the message.
    pub(crate) pages: Vec<(PageMiss, u32)>,
    /// Of a region: bytes from the first that is missing on.
    pub(crate) bytes: u32,
}

/// Where pages are looked up ahead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Offset in the message of the first byte that is missing.
    pub(crate) at: u32,
    /// Pages behind that byte's, at most.
    pub(crate) pages: u32,
    /// Offset of the furthest page that was asked for already: what is before it was looked up then.
    pub(crate) asked: Option<u32>,
}

impl<'a> List<'a> {
    fn access(&self, piece: &Piece) -> Access {
        Access {
            key: piece.key,
            pd: self.pd,
            addr: piece.addr,
            length: u64::from(piece.length),
            rights: self.rights,
        }
    }

    /// Checks keys, bounds and rights of every piece before a byte is moved; empty ones name no memory. A piece
    /// that is alone is checked when the copy begins with it.
    pub(crate) fn check(&self, port: &mut Port<'_>) -> Result<(), Cause> {
        if self.pieces.len() == 1 {
            return Ok(());
        }
        let mut pieces = self.pieces.iter().filter(|piece| piece.length > 0);
        pieces.try_for_each(|piece| port.check(&self.access(piece)))
    }

    /// A place in the list, `offset` bytes from its start.
    pub(crate) fn at(&self, offset: u32) -> Cursor<'_, 'a> {
        let mut cursor = Cursor { list: self, index: 0, inside: offset, found: None };
        cursor.skip();
        cursor
    }

    pub(crate) fn stopped(&self, error: impl Into<AccessError>) -> Stopped {
        Stopped { end: self.end, error: error.into() }
    }

    /// What is wanted behind the page at the start of `window`, which is missing, in the same piece.
    pub(crate) fn missing_behind(&self, port: &mut Port<'_>, window: Window) -> Ahead {
        let cursor = self.at(window.at);
        let Some(piece) = self.pieces.get(cursor.index) else { return Ahead::default() };
        let Ok(region) = port.region(&self.access(piece)) else { return Ahead::default() };
        let start = piece.addr.wrapping_add(u64::from(cursor.inside));
        let rest = u64::from(piece.length - cursor.inside);
        match region.backing {
            Backing::Process(pasid) => {
                let pages = self.pages_behind(port, pasid, (start, rest), window);
                Ahead { pages, bytes: 0 }
            }
            Backing::OnDemand { shift, .. } => {
                let inside = (start.wrapping_add(shift) & 0xfff).min(start - region.start);
                let most = u64::from(window.pages + 1) << 12;
                Ahead { pages: Vec::new(), bytes: (inside + rest).min(most) as u32 }
            }
            Backing::Pinned { .. } => Ahead::default(),
        }
    }

    /// Pages of a process behind the one at `start`, of which the piece has `rest` bytes, that are missing too.
    fn pages_behind(
        &self,
        port: &mut Port<'_>,
        pasid: Pasid,
        (start, rest): (u64, u64),
        window: Window,
    ) -> Vec<(PageMiss, u32)> {
        let inside = start & 0xfff;
        let asked = window.asked.and_then(|asked| asked.checked_sub(window.at));
        let asked = asked.map_or(0, |ahead| (inside + u64::from(ahead)) >> 12);
        let mut missing = Vec::new();
        for page in asked + 1..=u64::from(window.pages) {
            let ahead = (page << 12) - inside;
            if ahead >= rest {
                break;
            }
            match port.translate(Some(pasid), Iova(start.wrapping_add(ahead)), self.write) {
                Err(AccessError::Miss(miss)) => missing.push((miss, window.at + ahead as u32)),
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
            cursor.advance(bytes);
            found += bytes as u32;
        }
        port.note_translated();
        Ok(extents)
    }
}

/// A place in a list. What it found must not outlive the guard.
pub(crate) struct Cursor<'l, 'a> {
    list: &'l List<'a>,
    index: usize,
    inside: u32,
    /// Where the device TLB's array has the piece's region, once that passed its checks.
    found: Option<Option<Shortcut>>,
}

impl Cursor<'_, '_> {
    /// Checks the piece against its region, unless that was done.
    #[inline]
    pub(crate) fn resolve(&mut self, port: &mut Port<'_>) -> Result<(), Stopped> {
        if self.found.is_none() {
            let list = self.list;
            let piece = list.pieces.get(self.index).ok_or_else(|| list.stopped(Cause::Bounds))?;
            self.found = Some(port.resolve(&list.access(piece)).map_err(|cause| list.stopped(cause))?);
        }
        Ok(())
    }

    /// The memory from here on, to the end of the piece at most.
    pub(crate) fn extent(&mut self, port: &mut Port<'_>) -> Result<Extent, Stopped> {
        let list = self.list;
        let piece = list.pieces.get(self.index).ok_or_else(|| list.stopped(Cause::Bounds))?;
        let region = port.region(&list.access(piece)).map_err(|cause| list.stopped(cause))?;
        let addr = piece.addr.wrapping_add(u64::from(self.inside));
        let extent = port.locate(&region, addr, list.write).map_err(|error| list.stopped(error))?;
        Ok(Extent { bytes: extent.bytes.min(u64::from(piece.length - self.inside)), ..extent })
    }

    /// The rest of the piece as pages of the array, if its region was looked up and has a place there.
    pub(crate) fn track(&self) -> Option<Track> {
        let shortcut = self.found.as_ref()?.as_ref()?;
        let piece = self.list.pieces.get(self.index)?;
        let addr = piece.addr.wrapping_add(u64::from(self.inside));
        let rest = u64::from(piece.length - self.inside);
        Some(Track { space: shortcut.space, at: shortcut.place(addr), rest, write: self.list.write })
    }

    /// Moves on, by no more than the extent found last.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.inside += bytes as u32;
        self.skip();
    }

    /// From the end of a piece to the start of the next one that is not empty.
    fn skip(&mut self) {
        while let Some(piece) = self.list.pieces.get(self.index).filter(|piece| piece.length <= self.inside) {
            self.inside -= piece.length;
            self.index += 1;
            self.found = None;
        }
    }
}

/// What is left of a piece, as pages of the device TLB's array.
pub(crate) struct Track {
    pub(crate) space: Space,
    pub(crate) at: u64,
    pub(crate) rest: u64,
    pub(crate) write: bool,
}
