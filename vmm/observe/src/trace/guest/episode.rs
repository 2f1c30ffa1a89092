//! From the guest's events to what it did about each page request. Events come from several CPUs, and any may be
//! missing.

use std::collections::BTreeMap;

use super::event::{FaultKey, GuestEvent, Step};

/// What the guest did about one page request, in its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Episode {
    /// Whose it was.
    pub(super) fault: FaultKey,
    /// The page, where it was told.
    pub(super) page: Option<u64>,
    /// The entry was taken from its queue.
    pub(super) taken: Option<u64>,
    /// A handler began.
    pub(super) handling: Option<u64>,
    /// The page was in the table.
    pub(super) handled: Option<u64>,
    /// The response was about to be written.
    pub(super) submitted: Option<u64>,
}

impl Episode {
    fn new(fault: FaultKey, page: Option<u64>) -> Self {
        Self { fault, page, taken: None, handling: None, handled: None, submitted: None }
    }

    /// The first time that is known of it.
    pub(super) fn first(&self) -> u64 {
        let all = [self.taken, self.handling, self.handled, self.submitted];
        all.into_iter().flatten().min().unwrap_or(0)
    }

    /// The last one.
    pub(super) fn last(&self) -> u64 {
        let all = [self.taken, self.handling, self.handled, self.submitted];
        all.into_iter().flatten().max().unwrap_or(0)
    }
}

/// All of them, ordered by fault and time.
pub(super) fn episodes(mut events: Vec<GuestEvent>) -> Vec<Episode> {
    events.sort_by_key(|event| (event.at, event.step));
    let mut sorter = Sorter::default();
    events.iter().for_each(|event| sorter.take(event));
    let mut all = sorter.done;
    all.extend(sorter.open.into_values());
    all.sort_by_key(|episode| (episode.fault.0, episode.fault.1, episode.first()));
    all
}

#[derive(Default)]
struct Sorter {
    open: BTreeMap<FaultKey, Episode>,
    /// When a thread began with a page request; which one it says in the end.
    began: BTreeMap<u32, u64>,
    done: Vec<Episode>,
}

impl Sorter {
    fn take(&mut self, event: &GuestEvent) {
        let Some(fault) = event.fault else {
            self.began.insert(event.thread, event.at);
            return;
        };
        // A step that is behind the open one's belongs to the next request that bears the key.
        if self.open.get(&fault).is_some_and(|episode| !comes_after(episode, event.step)) {
            self.done.extend(self.open.remove(&fault));
        }
        let began = (event.step == Step::Handled).then(|| self.began.remove(&event.thread)).flatten();
        let episode = self.open.entry(fault).or_insert_with(|| Episode::new(fault, event.page));
        episode.page = episode.page.or(event.page);
        match event.step {
            Step::Taken => episode.taken = Some(event.at),
            Step::Handling => episode.handling = Some(event.at),
            Step::Handled => {
                episode.handled = Some(event.at);
                // One that began before the entry was taken had another request in hands.
                let own = |&began: &u64| episode.taken.is_none_or(|taken| taken <= began);
                episode.handling = episode.handling.or(began.filter(own));
            }
            Step::Submitted => episode.submitted = Some(event.at),
        }
    }
}

fn comes_after(episode: &Episode, step: Step) -> bool {
    let known = [
        (Step::Taken, episode.taken),
        (Step::Handling, episode.handling),
        (Step::Handled, episode.handled),
        (Step::Submitted, episode.submitted),
    ];
    known.iter().all(|(other, at)| at.is_none() || *other < step)
}

#[cfg(test)]
mod tests {
    use refault_bus::{AddressSpace, Pasid, PrgIndex};

    use super::*;

    const KEY: FaultKey = (AddressSpace::Process(Pasid::truncated(5)), PrgIndex::truncated(3));

    fn event(at: u64, thread: u32, step: Step) -> GuestEvent {
        let fault = (step != Step::Handling).then_some(KEY);
        GuestEvent { at, thread, step, fault, page: None }
    }

    fn times(episode: &Episode) -> [Option<u64>; 4] {
        [episode.taken, episode.handling, episode.handled, episode.submitted]
    }

    #[test]
    fn steps_of_one_request_come_together_from_several_threads_and_out_of_order() {
        let all = episodes(vec![
            event(40, 7, Step::Submitted),
            event(10, 1, Step::Taken),
            event(20, 7, Step::Handling),
            event(25, 8, Step::Handling),
            event(30, 7, Step::Handled),
        ]);
        assert_eq!(all.len(), 1);
        assert_eq!(times(&all[0]), [Some(10), Some(20), Some(30), Some(40)]);
    }

    #[test]
    fn a_key_that_is_used_again_begins_another() {
        let mut events = Vec::new();
        for at in [10, 100, 200] {
            events.extend([event(at, 1, Step::Taken), event(at + 2, 7, Step::Handling)]);
            events.extend([event(at + 3, 7, Step::Handled), event(at + 4, 7, Step::Submitted)]);
        }
        // Of the second, nothing but the end was kept.
        events.retain(|event| !(100..103).contains(&event.at));
        let all = episodes(events);
        let taken: Vec<_> = all.iter().map(times).collect();
        assert_eq!(
            taken,
            [
                [Some(10), Some(12), Some(13), Some(14)],
                [None, None, Some(103), Some(104)],
                [Some(200), Some(202), Some(203), Some(204)]
            ]
        );
    }

    #[test]
    fn a_thread_that_began_before_had_another_request_in_hands() {
        // The end of what thread 7 began at 5 was lost, and so was its next begin.
        let all = episodes(vec![
            event(5, 7, Step::Handling),
            event(10, 1, Step::Taken),
            event(30, 7, Step::Handled),
        ]);
        assert_eq!(times(&all[0]), [Some(10), None, Some(30), None]);
    }
}
