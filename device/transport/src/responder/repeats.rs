//! Requests that come again (IBTA volume 1, §9.7.4.4 and §9.7.5.1.2): nothing is executed twice, but READs.

use refault_roce::{Operation, Packet};

use super::replies::Stream;
use super::{Record, Responder, Response, Source};
use crate::config::ReadReplay;

impl Responder {
    /// Answers a packet from before the expected one.
    pub(super) fn repeat(&mut self, packet: &Packet) {
        let operation = packet.opcode.operation();
        if matches!(operation, Operation::Send | Operation::SendInvalidate | Operation::Write) {
            self.queue_ack();
            return;
        }
        let found = self.records.iter().find(|record| packet.psn.is_within(record.first, record.packets));
        let Some(&record) = found else {
            self.counters.forgotten += 1;
            return;
        };
        match record.response {
            Response::Read(source) if operation == Operation::ReadRequest => {
                match self.replay(packet, &record, source) {
                    Some(stream) => self.queue_read(stream),
                    None => self.counters.forgotten += 1,
                }
            }
            Response::Atomic(of, _) | Response::Done(of) if operation == of => self.queue_response(&record),
            _ => self.counters.forgotten += 1,
        }
    }

    /// The replies to a READ that is repeated, maybe from a later packet; `None` if it is another READ.
    fn replay(&self, packet: &Packet, record: &Record, source: Source) -> Option<Stream> {
        let skipped = u32::try_from(packet.psn.distance_from(record.first)).ok()?;
        let at = skipped * self.config.mtu.bytes();
        let again = Source { address: packet.reth.address, key: packet.reth.key, length: packet.reth.length };
        let is_inside = again.key == source.key
            && again.address == source.address.wrapping_add(u64::from(at))
            && again.length <= source.length - at;
        is_inside.then(|| Stream {
            source: again,
            first: packet.psn,
            next: 0,
            packets: self.config.mtu.packets(again.length),
            replays: skipped > 0 && self.config.read_replay == ReadReplay::Middle,
            msn: self.msn,
        })
    }

    /// Keeps what is needed to answer a request again. A requester that has no more in flight than was agreed on has the
    /// answer to what is forgotten for that.
    pub(super) fn remember(&mut self, record: Record) {
        if self.records.len() >= self.capacity()
            && let Some(oldest) = self.records.pop_front()
        {
            self.drop_replies(oldest.first, oldest.packets);
        }
        self.records.push_back(record);
    }

    fn capacity(&self) -> usize {
        usize::from(self.config.max_dest_rd_atomic.max(1))
    }
}
