//! What a page of a file may hold, known without asking the file system.
//!
//! Each page is written whole, and its words say by whom, in which version. Which of several versions a page holds is
//! open only among those that were under way at the same time.

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// Whose bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The file under DMA.
    Target = 1,
    /// The file it exchanges ranges with.
    Donor,
    /// Whoever gets the blocks that become free.
    Heir,
}

/// One content of a page; `None` is a hole: zeroes.
pub(super) type Version = Option<(Owner, u32)>;

/// The bytes of a version of a page.
pub(super) fn bytes(version: Version, page: u64) -> Vec<u8> {
    let Some((owner, number)) = version else { return vec![0; PAGE] };
    let word = |index: u64| (owner as u64) << 60 | u64::from(number) << 28 | (page & 0x7_ffff) << 9 | index;
    (0..PAGE as u64 / 8).flat_map(|index| word(index).to_le_bytes()).collect()
}

/// What one page may hold.
#[derive(Clone, Debug)]
pub(super) struct Page(Vec<Candidate>);

/// A version that was written, or is being written.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    version: Version,
    /// When it was over, if it is.
    over: Option<u64>,
}

impl Page {
    /// It holds this, since `now`.
    pub(super) fn holding(version: Version, now: u64) -> Self {
        Self(vec![Candidate { version, over: Some(now) }])
    }

    /// A write of `version` is under way from now on.
    pub(super) fn begin(&mut self, version: Version) {
        self.0.push(Candidate { version, over: None });
    }

    /// The write of `version` that began at `began` is over: whatever was over when it began is not there any more. If
    /// it failed it may have come to pass or not.
    pub(super) fn end(&mut self, version: Version, began: u64, now: u64, success: bool) {
        if success {
            self.0.retain(|other| other.version == version || other.over.is_none_or(|over| over > began));
        }
        for own in self.0.iter_mut().filter(|other| other.version == version) {
            own.over = Some(now);
        }
    }

    /// Something that nobody else does at the same time puts `version` here; what is under way may come after it.
    pub(super) fn replace(&mut self, version: Version, now: u64) {
        self.0.retain(|other| other.over.is_none());
        self.0.push(Candidate { version, over: Some(now) });
    }

    /// All of it as it is now, for a copy that no write reaches any more.
    pub(super) fn frozen(&self, now: u64) -> Self {
        Self(self.0.iter().map(|candidate| Candidate { over: Some(now), ..*candidate }).collect())
    }

    /// Nobody will hear of writes that are under way: they were of a program that is dead.
    pub(super) fn abandon(&mut self, now: u64) {
        for candidate in self.0.iter_mut().filter(|candidate| candidate.over.is_none()) {
            candidate.over = Some(now);
        }
    }

    /// The contents of two pages change places. What is under way for this one may have come to either.
    pub(super) fn exchange(&mut self, other: &mut Self, now: u64) {
        let under_way: Vec<_> = self.0.iter().filter(|candidate| candidate.over.is_none()).copied().collect();
        let here = std::mem::replace(&mut self.0, other.frozen(now).0);
        other.0 = Self(here).frozen(now).0;
        self.0.extend(under_way);
    }

    /// Bytes of `found`, page `number`, that are none of what may be there.
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
    fn a_write_that_is_over_leaves_only_itself_and_what_was_under_way_with_it() {
        let mut page = Page::holding(version(0), 0);
        page.begin(version(1));
        assert!(may_hold(&page, 0) && may_hold(&page, 1));
        page.begin(version(2));
        page.end(version(1), 1, 3, true);
        assert!(!may_hold(&page, 0) && may_hold(&page, 1) && may_hold(&page, 2));
        page.end(version(2), 2, 4, true);
        assert!(may_hold(&page, 1) && may_hold(&page, 2), "which of the two came last nobody knows");
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
    fn exchanged_pages_take_their_contents_along() {
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
