//! Interrupt moderation: how long an armed completion queue waits before it sends its event.

/// When to send the event: at `count` completions, or `period_us` after the first. With a count of zero only the time
/// counts; with a period of zero the event is sent at once. So no event waits for a completion that may not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moderation {
    pub(crate) count: u16,
    pub(crate) period_us: u16,
}

/// What is to be done about completions that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing, for now.
    Wait,
    /// Start the timer.
    StartTimer,
    /// Send the event.
    Notify,
}

/// How far an armed queue is on the way to its event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    rule: Moderation,
    /// Completions that count and were not reported.
    counted: u32,
    /// When they are reported at the latest.
    deadline_ns: Option<u64>,
    /// The worker was asked to start the timer, and has not done so yet: it is asked once.
    asked: bool,
}

impl Pace {
    /// Counts `more` completions.
    pub(crate) fn count(&mut self, more: u32, now_ns: u64) -> Step {
        self.recount(self.counted.saturating_add(more), now_ns)
    }

    /// Sets the count: the driver has seen all completions but `counted`.
    pub(crate) fn recount(&mut self, counted: u32, now_ns: u64) -> Step {
        self.counted = counted;
        let Moderation { count, period_us } = self.rule;
        if counted == 0 {
            self.deadline_ns = None;
            return Step::Wait;
        }
        if period_us == 0 || count != 0 && counted >= u32::from(count) {
            return Step::Notify;
        }
        if self.deadline_ns.is_some() {
            return Step::Wait;
        }
        self.deadline_ns = Some(now_ns.saturating_add(u64::from(period_us) * 1000));
        if std::mem::replace(&mut self.asked, true) { Step::Wait } else { Step::StartTimer }
    }

    /// Sets another rule. Returns whether completions waited under the old one.
    pub(crate) fn change(&mut self, rule: Moderation) -> bool {
        self.rule = rule;
        self.counted > 0
    }

    /// The worker starts the timer: its deadline.
    pub(crate) fn watched(&mut self) -> Option<u64> {
        self.asked = false;
        self.deadline_ns
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        self.deadline_ns.is_some_and(|at| at <= now_ns)
    }

    /// All completions were reported.
    pub(crate) fn restart(&mut self) {
        self.counted = 0;
        self.deadline_ns = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(count: u16, period_us: u16) -> Pace {
        let mut pace = Pace::default();
        assert!(!pace.change(Moderation { count, period_us }));
        pace
    }

    #[test]
    fn without_a_period_nothing_waits() {
        for count in [0, 1, 100] {
            assert_eq!(pace(count, 0).count(1, 5), Step::Notify, "{count}");
        }
        assert_eq!(pace(1, 9).count(1, 5), Step::Notify);
    }

    #[test]
    fn the_count_or_the_time_whichever_is_first() {
        let mut pace = pace(3, 10);
        assert_eq!([pace.count(1, 100), pace.count(1, 200)], [Step::StartTimer, Step::Wait]);
        assert_eq!(pace.watched(), Some(10_100));
        assert!(!pace.is_due(10_099) && pace.is_due(10_100));
        assert_eq!(pace.count(1, 300), Step::Notify);
        pace.restart();
        assert!(!pace.is_due(u64::MAX));
    }

    #[test]
    fn time_alone_counts_from_the_first_that_the_driver_has_not_seen() {
        let mut pace = pace(0, 10);
        assert_eq!(pace.count(1000, 0), Step::StartTimer);
        // It armed again, having seen all: the next one begins anew, and the worker was asked already.
        assert_eq!(pace.recount(0, 50), Step::Wait);
        assert_eq!(pace.count(1, 7000), Step::Wait);
        assert_eq!(pace.watched(), Some(17_000));
        pace.restart();
        assert_eq!(pace.count(1, 20_000), Step::StartTimer);
    }
}
