//! What responses say (IBTA volume 1, §9.7.5 and §9.7.6).

use refault_roce::{Nak, Operation, Packet, Psn, Syndrome};

use super::{Completion, Failure, Heard, InFlight, Requester};
use crate::request::Verb;

impl Requester {
    /// Takes a response with a payload of `length` bytes.
    pub fn receive(&mut self, packet: &Packet, length: usize, now_ns: u64) -> Heard {
        self.offered = false;
        let psn = packet.psn;
        let is_awaited = psn.distance_from(self.unacknowledged) >= 0 && psn.distance_from(self.unsent) < 0;
        if self.failed || !is_awaited {
            self.counters.ignored += 1;
            return Heard::Nothing;
        }
        match packet.opcode.operation() {
            Operation::Acknowledge => {
                self.hear_syndrome(psn, packet.aeth.syndrome, now_ns);
                Heard::Nothing
            }
            Operation::ReadResponse => self.hear_read(psn, length, now_ns),
            Operation::AtomicAcknowledge => self.hear_atomic(psn, packet.original, now_ns),
            _ => {
                self.counters.ignored += 1;
                Heard::Nothing
            }
        }
    }

    /// The bytes of the response that [`Self::receive`] gave are in memory.
    pub fn placed(&mut self, now_ns: u64) {
        if std::mem::take(&mut self.offered) {
            self.answer(1, now_ns);
        }
    }

    fn hear_syndrome(&mut self, psn: Psn, syndrome: Syndrome, now_ns: u64) {
        match syndrome {
            Syndrome::Ack(_) => {
                self.acknowledge(psn.after(1), now_ns);
            }
            Syndrome::ReceiverNotReady(code) => {
                if self.acknowledge(psn, now_ns) {
                    self.wait_until_ready(code, now_ns);
                }
            }
            Syndrome::Nak(Nak::Sequence) => {
                if !self.acknowledge(psn, now_ns) {
                    return;
                }
                if self.not_ready_until_ns.is_some() {
                    // Some responders send one for what was sent behind a packet that was not taken: the delay goes on.
                    if self.config.resumes {
                        self.resume(now_ns);
                    }
                } else if !self.went_back {
                    self.counters.sequence_errors += 1;
                    self.repeat(now_ns);
                }
            }
            Syndrome::Nak(nak) => {
                if self.acknowledge(psn, now_ns) {
                    self.fail(match nak {
                        Nak::RemoteAccess => Failure::RemoteAccess,
                        Nak::RemoteOperation => Failure::RemoteOperation,
                        _ => Failure::InvalidRequest,
                    });
                }
            }
            Syndrome::Reserved(_) => self.counters.ignored += 1,
        }
    }

    fn hear_read(&mut self, psn: Psn, length: usize, now_ns: u64) -> Heard {
        if !self.acknowledge(psn, now_ns) {
            return Heard::Nothing;
        }
        let Some(&InFlight { request, answered, .. }) = self.requests.front() else { return Heard::Nothing };
        match request.verb {
            Verb::Read { .. } => {
                let at = answered * self.config.mtu.bytes();
                let left = request.length - at;
                if length != left.min(self.config.mtu.bytes()) as usize {
                    self.fail(Failure::BadResponse);
                    return Heard::Nothing;
                }
                self.offered = true;
                Heard::Data { id: self.first_id, at }
            }
            Verb::Flush { .. } | Verb::AtomicWrite { .. } if length == 0 => {
                self.answer(1, now_ns);
                Heard::Nothing
            }
            _ => {
                self.fail(Failure::BadResponse);
                Heard::Nothing
            }
        }
    }

    fn hear_atomic(&mut self, psn: Psn, value: u64, now_ns: u64) -> Heard {
        if !self.acknowledge(psn, now_ns) {
            return Heard::Nothing;
        }
        let verb = self.requests.front().map(|front| front.request.verb);
        if !matches!(verb, Some(Verb::CompareSwap { .. } | Verb::FetchAdd { .. })) {
            self.fail(Failure::BadResponse);
            return Heard::Nothing;
        }
        self.offered = true;
        Heard::Original { id: self.first_id, value }
    }

    /// All before `end` has arrived. `false` if there is a request among it whose own response is missing: that is
    /// lost, and asked for again (§9.7.5.1.3).
    fn acknowledge(&mut self, end: Psn, now_ns: u64) -> bool {
        while self.unacknowledged.distance_from(end) < 0 {
            let Some(front) = self.requests.front() else { return false };
            if front.request.verb.has_response() {
                if !self.went_back {
                    self.counters.lost_responses += 1;
                    self.repeat(now_ns);
                }
                return false;
            }
            let left = front.packets - front.answered;
            let arrived = u32::try_from(end.distance_from(self.unacknowledged)).unwrap_or(0);
            self.answer(left.min(arrived), now_ns);
        }
        true
    }

    /// The next `packets` of the first request are answered: progress.
    fn answer(&mut self, packets: u32, now_ns: u64) {
        let Some(front) = self.requests.front_mut() else { return };
        front.answered += packets;
        let is_done = front.answered == front.packets;
        self.unacknowledged = self.unacknowledged.after(packets);
        if self.cursor.distance_from(self.unacknowledged) < 0 {
            self.cursor = self.unacknowledged;
        }
        if is_done {
            self.requests.pop_front();
            self.completions.push_back(Completion { id: self.first_id, result: Ok(()) });
            self.first_id += 1;
        }
        self.note_progress(now_ns);
    }

    /// The first request fails, and with it the connection.
    pub(super) fn fail(&mut self, failure: Failure) {
        self.failed = true;
        self.timeout_at_ns = None;
        self.not_ready_until_ns = None;
        if self.requests.pop_front().is_some() {
            self.completions.push_back(Completion { id: self.first_id, result: Err(failure) });
            self.first_id += 1;
        }
    }
}
