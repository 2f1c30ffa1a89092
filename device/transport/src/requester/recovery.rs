//! Timers, and what is sent again (IBTA volume 1, §9.7.5.2.8, §9.7.6.1.3 and §9.9.2.1).

use refault_roce::rnr_delay_ns;

use super::{Failure, Requester};

impl Requester {
    /// When [`Self::expire`] wants to be called, if ever.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        [self.timeout_at_ns, self.not_ready_until_ns].into_iter().flatten().min()
    }

    /// Serves the timers that are due. Then there may be packets to send.
    pub fn expire(&mut self, now_ns: u64) {
        let is_due = |at: &Option<u64>| at.is_some_and(|at| at <= now_ns);
        if is_due(&self.not_ready_until_ns) {
            self.not_ready_until_ns = None;
        }
        if is_due(&self.timeout_at_ns) {
            self.counters.timeouts += 1;
            self.repeat(now_ns);
            // Whatever is heard from now on is about the repetition, or may as well be.
            self.went_back = false;
        }
    }

    /// Something was answered.
    pub(super) fn note_progress(&mut self, now_ns: u64) {
        self.retries = 0;
        self.rnr_retries = 0;
        self.went_back = false;
        self.not_ready_until_ns = None;
        self.start_timer(now_ns);
    }

    /// The timer runs while something that was sent is not acknowledged.
    pub(super) fn start_timer(&mut self, now_ns: u64) {
        let is_answered = self.unacknowledged.distance_from(self.unsent) >= 0;
        let timeout_ns = self.config.timeout_ns.filter(|_| !is_answered);
        self.timeout_at_ns = timeout_ns.map(|timeout_ns| now_ns.saturating_add(timeout_ns));
    }

    /// A packet was lost: sends all again from the first that is not acknowledged, or fails if that was done too often.
    pub(super) fn repeat(&mut self, now_ns: u64) {
        if self.retries >= self.config.retry_count {
            self.fail(Failure::RetriesExceeded);
            return;
        }
        self.retries += 1;
        self.went_back = true;
        self.dam = None;
        self.cursor = self.unacknowledged;
        self.start_timer(now_ns);
    }

    /// The response that was given is dropped for want of a page: it is asked for again, by this side's own choice, so that
    /// it does not count as lost.
    pub fn put_back(&mut self, now_ns: u64) {
        if std::mem::take(&mut self.offered) {
            self.went_back = true;
            self.cursor = self.unacknowledged;
            self.start_timer(now_ns);
        }
    }

    /// The receiver is not ready for the first packet that is not acknowledged: waits, then sends from there again.
    pub(super) fn wait_until_ready(&mut self, code: u8, now_ns: u64) {
        if self.not_ready_until_ns.is_some() {
            return;
        }
        self.counters.not_ready += 1;
        if self.config.rnr_retry.is_some_and(|limit| self.rnr_retries >= limit) {
            self.fail(Failure::NotReadyRetriesExceeded);
            return;
        }
        self.rnr_retries = self.rnr_retries.saturating_add(1);
        self.cursor = self.unacknowledged;
        let refused = self.requests.front().filter(|_| self.config.dams);
        self.dam = refused.map(|refused| refused.first.after(refused.packets));
        self.not_ready_until_ns = Some(now_ns.saturating_add(rnr_delay_ns(code)));
        // An answer is not awaited now.
        self.timeout_at_ns = None;
    }

    /// The receiver says that it is ready before the delay is over.
    pub(super) fn resume(&mut self, now_ns: u64) {
        self.counters.resumed += 1;
        self.not_ready_until_ns = None;
        self.start_timer(now_ns);
    }
}
