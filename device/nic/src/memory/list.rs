//! Scatter/gather lists: where the bytes of a message are, piece by piece.

use refault_abi::codes::AccessRights;
use refault_bus::bits::low_u32;

use crate::cause::Cause;
use crate::memory::access::{AccessError, Extent, Stopped};
use crate::memory::port::Port;
use crate::memory::recent::Space;
use crate::memory::resolve::{Access, Ahead, Resolve, Shortcut, Window};
use crate::verbs::{End, Piece};

/// One end of a copy: pieces of memory, and the rights of the access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List<'a> {
    pub(crate) pieces: &'a [Piece],
    pub(crate) pd: u32,
    /// ACCESS_* that each piece's region must have.
    pub(crate) rights: AccessRights,
    /// It is written.
    pub(crate) write: bool,
    pub(crate) end: End,
}

impl<'a> List<'a> {
    fn access(&self, piece: &Piece) -> Access {
        Access {
            key: piece.key,
            pd: self.pd,
            addr: piece.addr,
            length: u64::from(piece.length),
            rights: self.rights,
            write: self.write,
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
        let mut cursor = Cursor { list: self, index: 0, inside: offset, piece: Resolved::No };
        cursor.skip();
        cursor
    }

    pub(crate) fn stopped(&self, error: impl Into<AccessError>) -> Stopped {
        Stopped { end: self.end, error: error.into() }
    }

    /// What the request needs, in the same piece, beyond the missing page at the start of `window`.
    pub(crate) fn missing_behind(&self, port: &mut Port<'_>, window: Window) -> Ahead {
        let cursor = self.at(window.at);
        let Some(piece) = self.pieces.get(cursor.index) else { return Ahead::default() };
        port.missing_behind(&self.access(piece), cursor.inside, window)
    }

    /// The memory of the first `length` bytes, piece by piece.
    pub(crate) fn extents(&self, port: &mut Port<'_>, length: u64) -> Result<Vec<Extent>, Stopped> {
        self.extents_at(port, 0, length).map_err(|(stopped, _)| stopped)
    }

    /// The memory of `length` bytes from `at` on, piece by piece; or what is wrong, and at which byte.
    pub(crate) fn extents_at(
        &self,
        port: &mut Port<'_>,
        at: u32,
        length: u64,
    ) -> Result<Vec<Extent>, (Stopped, u32)> {
        let mut extents = Vec::new();
        let mut cursor = self.at(at);
        let mut found = 0;
        while found < length {
            let extent = cursor.extent(port).map_err(|stopped| (stopped, at + low_u32(found)))?;
            let bytes = extent.bytes.min(length - found);
            extents.push(Extent { bytes, ..extent });
            cursor.advance(bytes);
            found += bytes;
        }
        port.note_translated();
        Ok(extents)
    }
}

/// What is known of a cursor's piece.
#[derive(Clone, Copy, Debug)]
enum Resolved {
    /// Nothing.
    No,
    /// It passed the checks of its region.
    Checked,
    /// The same, and its pages may be among those used recently.
    At(Shortcut),
}

/// A place in a list. What it found must not outlive the guard.
pub(crate) struct Cursor<'l, 'a> {
    list: &'l List<'a>,
    index: usize,
    inside: u32,
    piece: Resolved,
}

impl Cursor<'_, '_> {
    /// Checks the piece against its region, unless that was done.
    #[inline]
    pub(crate) fn resolve(&mut self, port: &mut Port<'_>) -> Result<(), Stopped> {
        if matches!(self.piece, Resolved::No) {
            let list = self.list;
            let piece = list.pieces.get(self.index).ok_or_else(|| list.stopped(Cause::Bounds))?;
            let shortcut = port.shortcut(&list.access(piece)).map_err(|cause| list.stopped(cause))?;
            self.piece = shortcut.map_or(Resolved::Checked, Resolved::At);
        }
        Ok(())
    }

    /// The memory from here on, to the end of the piece at most.
    pub(crate) fn extent(&mut self, port: &mut Port<'_>) -> Result<Extent, Stopped> {
        let list = self.list;
        let piece = list.pieces.get(self.index).ok_or_else(|| list.stopped(Cause::Bounds))?;
        port.resolve(&list.access(piece), self.inside).map_err(|error| list.stopped(error))
    }

    /// The rest of the piece as recently used pages, if it was resolved and may be cached.
    pub(crate) fn track(&self) -> Option<Track> {
        let Resolved::At(shortcut) = &self.piece else { return None };
        let piece = self.list.pieces.get(self.index)?;
        let addr = piece.addr.wrapping_add(u64::from(self.inside));
        let rest = u64::from(piece.length - self.inside);
        Some(Track { space: shortcut.space, at: shortcut.place(addr), rest, write: self.list.write })
    }

    /// Moves on, by no more than the extent found last.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.inside += low_u32(bytes);
        self.skip();
    }

    /// From the end of a piece to the start of the next one that is not empty.
    fn skip(&mut self) {
        while let Some(piece) = self.list.pieces.get(self.index).filter(|piece| piece.length <= self.inside) {
            self.inside -= piece.length;
            self.index += 1;
            self.piece = Resolved::No;
        }
    }
}

/// What is left of a piece, as pages that were used recently.
pub(crate) struct Track {
    pub(crate) space: Space,
    pub(crate) at: u64,
    pub(crate) rest: u64,
    pub(crate) write: bool,
}
