//! Sampled requests on their way through the engine.

use refault_abi::codes::WcStatus;
use refault_bus::probe::RequestEvent;

use super::outcome::Outcome;
use super::turn::Turn;
use crate::observe::RequestStamps;
use crate::qp::requester::Requester;

impl Turn<'_, '_> {
    /// A request was fetched that is to be sampled, or another soon is.
    #[cold]
    pub(super) fn sample(&mut self) {
        let Requester { setup, consumer, active, sampling, .. } = &mut *self.requester;
        let fabric = self.port.fabric();
        let near = sampling.choose(self.engine.config.sample_every, || {
            let request = active.get().map(|active| active.request);
            let (opcode, bytes) = request.map_or((0, 0), |request| (request.opcode, request.length));
            RequestEvent {
                qpn: setup.qpn,
                index: *consumer,
                opcode,
                bytes,
                fetched_ns: fabric.now_ns(),
                ..RequestEvent::default()
            }
        });
        self.qp.want_rung(near);
    }

    /// Delivers a request that is sampled.
    #[cold]
    pub(super) fn deliver_sampled(&mut self) -> Outcome {
        self.port.stamps = Some(RequestStamps::begin(&self.port.shard().stats));
        let outcome = self.handover().deliver();
        let translated = self.port.stamps.take().and_then(|stamps| stamps.translated);
        let bytes = self.requester.active.get().map(|active| active.request.length);
        if let Some(event) = self.requester.sampling.sampled() {
            if event.translated_ns.is_none() {
                (event.translated_ns, event.translator) = translated.unzip();
            }
            if outcome == Outcome::Done {
                event.landed_ns = Some(self.port.fabric().now_ns());
            }
            // The length of a FLUSH of a whole region is known only now.
            event.bytes = bytes.unwrap_or(event.bytes);
        }
        outcome
    }

    /// Reports a sampled request that is over, its completion written if there is one.
    #[cold]
    pub(super) fn report_sampled(&mut self, mut event: RequestEvent, status: WcStatus) {
        if let Some(stamps) = self.port.stamps.take() {
            event.written_ns = stamps.written_ns;
            event.interrupted = stamps.interrupted(&self.port.shard().stats);
        }
        event.status = status.0;
        event.end_ns = self.port.fabric().now_ns();
        self.port.fabric().probe.request(&event);
    }
}
