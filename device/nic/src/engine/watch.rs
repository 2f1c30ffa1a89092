//! Requests that are sampled on their way through the engine.

use refault_bus::probe::RequestEvent;

use super::requester::Outcome;
use crate::Nic;
use crate::memory::port::Port;
use crate::observe::RequestStamps;
use crate::qp::{Qp, Requester};

impl Nic {
    /// A request was fetched that is to be sampled, or another soon is.
    #[cold]
    pub(crate) fn sample(&self, qp: &Qp, requester: &mut Requester) {
        let Requester { setup, consumer, active, sampling, .. } = requester;
        let near = sampling.choose(self.config.sample_every, || {
            let (opcode, bytes) = active.as_ref().map_or((0, 0), |active| (active.wqe.opcode, active.length));
            RequestEvent {
                qpn: setup.qpn,
                index: *consumer,
                opcode,
                bytes,
                fetched_ns: self.fabric.now_ns(),
                ..RequestEvent::default()
            }
        });
        qp.want_rung(near);
    }

    /// [`Self::deliver`] for a request that is sampled.
    #[cold]
    pub(crate) fn deliver_watched(&self, port: &mut Port<'_>, requester: &mut Requester) -> Outcome {
        port.stamps = Some(RequestStamps::begin(&port.shard().stats));
        let outcome = self.deliver(port, requester);
        let seen = port.stamps.take().and_then(|stamps| stamps.translated);
        let bytes = requester.active.as_ref().map(|active| active.length);
        if let Some(event) = requester.sampling.sampled() {
            if event.translated_ns.is_none() {
                (event.translated_ns, event.translator) = seen.unzip();
            }
            if outcome == Outcome::Done {
                event.landed_ns = Some(self.fabric.now_ns());
            }
            // The length of a FLUSH of a whole region is known only now.
            event.bytes = bytes.unwrap_or(event.bytes);
        }
        outcome
    }

    /// Reports a sampled request that is over, its completion written if it asked for one.
    #[cold]
    pub(crate) fn tell_of_request(&self, port: &mut Port<'_>, mut event: RequestEvent, status: u8) {
        if let Some(stamps) = port.stamps.take() {
            event.written_ns = stamps.written_ns;
            event.interrupted = stamps.interrupted(&port.shard().stats);
        }
        event.status = status;
        event.end_ns = self.fabric.now_ns();
        self.fabric.probe.request(&event);
    }
}
