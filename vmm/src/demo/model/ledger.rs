//! The possible contents of a file's pages, tracked without reading the filesystem.
//!
//! Each page is written whole, and its words encode the owner and the version. More than one version is possible only
//! while, or after, several writes of the page were in flight at the same time.

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// The owner of a page's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The file under DMA.
    Target = 1,
    /// The file it exchanges ranges with.
    Donor,
    /// A file that reuses freed blocks.
    Reuser,
}

/// One content of a page; `None` is a hole: zeroes.
pub(super) type Version = Option<(Owner, u32)>;

/// The bytes of a version of a page.
pub(super) fn bytes(version: Version, page: u64) -> Vec<u8> {
    let Some((owner, number)) = version else { return vec![0; PAGE] };
    let word = |index: u64| (owner as u64) << 60 | u64::from(number) << 28 | (page & 0x7_ffff) << 9 | index;
    (0..PAGE as u64 / 8).flat_map(|index| word(index).to_le_bytes()).collect()
}

/// The versions that one page may hold.
#[derive(Clone, Debug)]
pub(super) struct Page(Vec<Candidate>);

/// A version that was written, or is being written.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    version: Version,
    /// When the write ended, if it has.
    ended: Option<u64>,
}

impl Page {
    /// A page that has held `version` since `now`.
    pub(super) fn holding(version: Version, now: u64) -> Self {
        Self(vec![Candidate { version, ended: Some(now) }])
    }

    /// Starts a write of `version`.
    pub(super) fn begin(&mut self, version: Version) {
        self.0.push(Candidate { version, ended: None });
    }

    /// Ends the write of `version` that began at `began`. On success, versions whose writes had ended before that are no
    /// longer possible. A failed write may or may not have taken effect.
    pub(super) fn end(&mut self, version: Version, began: u64, now: u64, success: bool) {
        if success {
            self.0.retain(|other| other.version == version || other.ended.is_none_or(|ended| ended > began));
        }
        for own in self.0.iter_mut().filter(|other| other.version == version) {
            own.ended = Some(now);
        }
    }

    /// Replaces the contents by `version` with an exclusive operation. Writes in flight may land after it.
    pub(super) fn replace(&mut self, version: Version, now: u64) {
        self.0.retain(|other| other.ended.is_none());
        self.0.push(Candidate { version, ended: Some(now) });
    }

    /// The possible contents of a copy that no later write reaches.
    pub(super) fn frozen(&self, now: u64) -> Self {
        Self(self.0.iter().map(|candidate| Candidate { ended: Some(now), ..*candidate }).collect())
    }

    /// Ends the writes in flight without a completion: their program was killed.
    pub(super) fn abandon(&mut self, now: u64) {
        for candidate in self.0.iter_mut().filter(|candidate| candidate.ended.is_none()) {
            candidate.ended = Some(now);
        }
    }

    /// Exchanges the contents of two pages. Writes in flight to this one may have landed in either.
    pub(super) fn exchange(&mut self, other: &mut Self, now: u64) {
        let in_flight: Vec<_> =
            self.0.iter().filter(|candidate| candidate.ended.is_none()).copied().collect();
        let here = std::mem::replace(&mut self.0, other.frozen(now).0);
        other.0 = Self(here).frozen(now).0;
        self.0.extend(in_flight);
    }

    /// Bytes of `found` that differ from the closest possible content of page `number`.
    pub(super) fn wrong(&self, number: u64, found: &[u8]) -> u64 {
        let off = |candidate: &Candidate| {
            let expected = bytes(candidate.version, number);
            expected.iter().zip(found).filter(|(a, b)| a != b).count() as u64
        };
        self.0.iter().map(off).min().unwrap_or(PAGE as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u32) -> Version {
        Some((Owner::Target, number))
    }

    fn may_hold(page: &Page, number: u32) -> bool {
        page.wrong(3, &bytes(version(number), 3)) == 0
    }

    #[test]
    fn a_completed_write_leaves_itself_and_the_writes_in_flight_with_it() {
        let mut page = Page::holding(version(0), 0);
        page.begin(version(1));
        assert!(may_hold(&page, 0) && may_hold(&page, 1));
        page.begin(version(2));
        page.end(version(1), 1, 3, true);
        assert!(!may_hold(&page, 0) && may_hold(&page, 1) && may_hold(&page, 2));
        page.end(version(2), 2, 4, true);
        assert!(may_hold(&page, 1) && may_hold(&page, 2), "either of the two may have landed last");
        page.begin(version(3));
        page.end(version(3), 5, 6, true);
        assert!(!may_hold(&page, 1) && !may_hold(&page, 2) && may_hold(&page, 3));
    }

    #[test]
    fn a_failed_write_may_have_happened() {
        let mut page = Page::holding(version(0), 0);
        page.begin(version(1));
        page.end(version(1), 1, 2, false);
        assert!(may_hold(&page, 0) && may_hold(&page, 1));
    }

    #[test]
    fn exchanged_pages_exchange_their_contents() {
        let mut here = Page::holding(version(1), 0);
        let mut there = Page::holding(Some((Owner::Donor, 9)), 0);
        here.begin(version(2));
        here.exchange(&mut there, 1);
        assert!(may_hold(&here, 2) && !may_hold(&here, 1) && may_hold(&there, 1) && may_hold(&there, 2));
        assert_eq!(here.wrong(3, &bytes(Some((Owner::Donor, 9)), 3)), 0);
    }

    #[test]
    fn other_bytes_are_counted() {
        let page = Page::holding(version(1), 0);
        let mut found = bytes(version(1), 3);
        found[100] ^= 1;
        assert_eq!(page.wrong(3, &found), 1);
        assert_ne!(page.wrong(4, &bytes(version(1), 3)), 0, "a page at another place is another page");
    }
}
