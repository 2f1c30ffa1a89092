//! Requests that are watched: one in so many of each queue pair, chosen when it is fetched.
//!
//! What is not watched pays for a count. What is has its rows stamped on the way and is told of once, in the end.

use refault_bus::probe::{RequestEvent, Translator};

use super::requester::Outcome;
use crate::Nic;
use crate::dma::Port;
use crate::qp::{Qp, Requester};

/// So many requests before a watched one, times of doorbells are noted: more than drivers usually announce together.
const NEAR: u32 = 64;

/// When a queue pair's next request is watched, and what is known of the one that is.
#[derive(Debug, Default)]
pub(crate) struct Sampling {
    /// Requests before the next one to watch. Zero at first.
    left: u32,
    /// The first doorbell that announced the requests found last.
    pub(crate) rung_ns: Option<u64>,
    watched: Option<Box<RequestEvent>>,
}

impl Sampling {
    /// Counts a request; whether it is one to watch, or one shortly before.
    #[inline]
    pub(crate) fn is_near(&mut self) -> bool {
        let far = self.left > NEAR;
        self.left -= u32::from(far);
        !far
    }

    /// Whether the active request is watched.
    #[inline]
    pub(crate) fn is_watching(&self) -> bool {
        self.watched.is_some()
    }

    /// What is known of the request, which is over.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Box<RequestEvent>> {
        self.watched.take()
    }

    /// A page was missing.
    pub(crate) fn count_fault(&mut self) {
        if let Some(watched) = &mut self.watched {
            watched.faults = watched.faults.saturating_add(1);
        }
    }
}

/// What a port notes while it serves a watched request; counters are those of its shard at the begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    table_walks: u64,
    atc_misses: u64,
    interrupts: u64,
    translated: Option<(u64, Translator)>,
    written_ns: Option<u64>,
}

impl Watch {
    /// Nothing noted yet.
    pub(crate) fn begin(port: &mut Port<'_>) -> Self {
        let stats = &port.shard().stats;
        Self {
            table_walks: stats.table_walks,
            atc_misses: stats.atc_misses,
            interrupts: stats.interrupts,
            translated: None,
            written_ns: None,
        }
    }
}

impl Port<'_> {
    /// Memory was found; nothing is copied yet.
    #[inline]
    pub(crate) fn note_translated(&mut self) {
        if self.watch.is_some() {
            self.stamp_translated();
        }
    }

    #[cold]
    fn stamp_translated(&mut self) {
        let (now_ns, stats) = (self.fabric().now_ns(), self.shard().stats);
        let Some(watch) = self.watch.as_mut().filter(|watch| watch.translated.is_none()) else { return };
        let translator = if stats.table_walks != watch.table_walks {
            Translator::Table
        } else if stats.atc_misses != watch.atc_misses {
            Translator::Iommu
        } else {
            Translator::DeviceTlb
        };
        watch.translated = Some((now_ns, translator));
    }

    /// A completion entry is in memory; nobody was interrupted yet.
    #[inline]
    pub(crate) fn note_written(&mut self) {
        if self.watch.is_some() {
            self.stamp_written();
        }
    }

    #[cold]
    fn stamp_written(&mut self) {
        let now_ns = self.fabric().now_ns();
        if let Some(watch) = &mut self.watch {
            watch.written_ns.get_or_insert(now_ns);
        }
    }
}

impl Nic {
    /// A request was fetched that is to be watched, or another is soon.
    #[cold]
    pub(crate) fn sample(&self, qp: &Qp, requester: &mut Requester) {
        let every = self.config.sample_every;
        let Requester { setup, consumer, active, sampling, .. } = requester;
        match (every, sampling.left) {
            (0, _) => sampling.left = u32::MAX,
            (_, 0) => {
                let (opcode, bytes) =
                    active.as_ref().map_or((0, 0), |active| (active.wqe.opcode, active.length));
                sampling.left = every - 1;
                sampling.watched = Some(Box::new(RequestEvent {
                    qpn: setup.qpn,
                    index: *consumer,
                    opcode,
                    bytes,
                    doorbell_ns: sampling.rung_ns,
                    fetched_ns: self.fabric.now_ns(),
                    ..RequestEvent::default()
                }));
            }
            (_, more) => sampling.left = more - 1,
        }
        qp.want_rung(sampling.left <= NEAR);
    }

    /// [`Self::deliver`], of a request that is watched.
    #[cold]
    pub(crate) fn deliver_watched(&self, port: &mut Port<'_>, requester: &mut Requester) -> Outcome {
        port.watch = Some(Watch::begin(port));
        let outcome = self.deliver(port, requester);
        let seen = port.watch.take().and_then(|watch| watch.translated);
        let bytes = requester.active.as_ref().map(|active| active.length);
        if let Some(event) = requester.sampling.watched.as_deref_mut() {
            if event.translated_ns.is_none() {
                (event.translated_ns, event.translator) = seen.unzip();
            }
            if outcome == Outcome::Done {
                event.landed_ns = Some(self.fabric.now_ns());
            }
            // How long a FLUSH of a whole region is, is known only now.
            event.bytes = bytes.unwrap_or(event.bytes);
        }
        outcome
    }

    /// A watched request is over, and its completion written if it wanted one.
    #[cold]
    pub(crate) fn tell_of_request(&self, port: &mut Port<'_>, mut event: RequestEvent, status: u8) {
        let interrupts = port.shard().stats.interrupts;
        if let Some(watch) = port.watch.take() {
            event.written_ns = watch.written_ns;
            event.interrupted = watch.interrupts != interrupts;
        }
        event.status = status;
        event.end_ns = self.fabric.now_ns();
        self.fabric.probe.request(&event);
    }
}
