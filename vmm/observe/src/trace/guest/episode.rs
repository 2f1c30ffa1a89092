//! Groups the guest's events into episodes, one for each page request. Events come from several CPUs, and any may be
//! missing.

use std::collections::BTreeMap;

use super::event::{FaultKey, GuestEvent, GuestStep};

/// The guest's handling of one page request, in nanoseconds of its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Episode {
    /// The fault that it belongs to.
    pub(super) fault: FaultKey,
    /// The page, if an event names it.
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

    /// Its earliest time.
    pub(super) fn first(&self) -> u64 {
        let all = [self.taken, self.handling, self.handled, self.submitted];
        all.into_iter().flatten().min().unwrap_or(0)
    }

    /// Its latest time.
    pub(super) fn last(&self) -> u64 {
        let all = [self.taken, self.handling, self.handled, self.submitted];
        all.into_iter().flatten().max().unwrap_or(0)
    }
}

/// All episodes, ordered by fault and time.
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
    /// When each thread began with a page request; the event at the end names which one.
    began: BTreeMap<u32, u64>,
    done: Vec<Episode>,
}

impl Sorter {
    fn take(&mut self, event: &GuestEvent) {
        let Some(fault) = event.fault else {
            self.began.insert(event.thread, event.at);
            return;
        };
        // A step that the open episode has passed belongs to the next request with the same key.
        if self.open.get(&fault).is_some_and(|episode| !comes_after(episode, event.step)) {
            self.done.extend(self.open.remove(&fault));
        }
        let began = (event.step == GuestStep::Handled).then(|| self.began.remove(&event.thread)).flatten();
        let episode = self.open.entry(fault).or_insert_with(|| Episode::new(fault, event.page));
        episode.page = episode.page.or(event.page);
        match event.step {
            GuestStep::Taken => episode.taken = Some(event.at),
            GuestStep::Handling => episode.handling = Some(event.at),
            GuestStep::Handled => {
                episode.handled = Some(event.at);
                // A thread that began before the entry was taken was handling another request.
                let own = |&began: &u64| episode.taken.is_none_or(|taken| taken <= began);
                episode.handling = episode.handling.or(began.filter(own));
            }
            GuestStep::Submitted => episode.submitted = Some(event.at),
        }
    }
}

fn comes_after(episode: &Episode, step: GuestStep) -> bool {
    let known = [
        (GuestStep::Taken, episode.taken),
        (GuestStep::Handling, episode.handling),
        (GuestStep::Handled, episode.handled),
        (GuestStep::Submitted, episode.submitted),
    ];
    known.iter().all(|(other, at)| at.is_none() || *other < step)
}

#[cfg(test)]
mod tests {
    use refault_bus::{AddressSpace, Pasid, PrgIndex};

    use super::*;

    const KEY: FaultKey = (AddressSpace::Process(Pasid::truncated(5)), PrgIndex::truncated(3));

    fn event(at: u64, thread: u32, step: GuestStep) -> GuestEvent {
        let fault = (step != GuestStep::Handling).then_some(KEY);
        GuestEvent { at, thread, step, fault, page: None }
    }

    fn times(episode: &Episode) -> [Option<u64>; 4] {
        [episode.taken, episode.handling, episode.handled, episode.submitted]
    }

    #[test]
    fn steps_are_grouped_across_threads_and_out_of_order() {
        let all = episodes(vec![
            event(40, 7, GuestStep::Submitted),
            event(10, 1, GuestStep::Taken),
            event(20, 7, GuestStep::Handling),
            event(25, 8, GuestStep::Handling),
            event(30, 7, GuestStep::Handled),
        ]);
        assert_eq!(all.len(), 1);
        assert_eq!(times(&all[0]), [Some(10), Some(20), Some(30), Some(40)]);
    }

    #[test]
    fn a_reused_key_begins_another_episode() {
        let mut events = Vec::new();
        for at in [10, 100, 200] {
            events.extend([event(at, 1, GuestStep::Taken), event(at + 2, 7, GuestStep::Handling)]);
            events.extend([event(at + 3, 7, GuestStep::Handled), event(at + 4, 7, GuestStep::Submitted)]);
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
    fn a_thread_that_began_earlier_was_handling_another_request() {
        // The end of what thread 7 began at 5 was lost, and so was its next begin.
        let all = episodes(vec![
            event(5, 7, GuestStep::Handling),
            event(10, 1, GuestStep::Taken),
            event(30, 7, GuestStep::Handled),
        ]);
        assert_eq!(times(&all[0]), [Some(10), None, Some(30), None]);
    }
}
