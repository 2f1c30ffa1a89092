//! The rings' layouts: send and receive requests are decoded here, completions and events encoded.

use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};

use refault_abi::codes::{
    AccessRights, CAUSE_NONE, FLUSH_GLOBAL, FLUSH_PERSISTENT, FLUSH_RANGE, OP_ATOMIC_WRITE, OP_COMPARE_SWAP,
    OP_FETCH_ADD, OP_FLUSH, OP_LOCAL_INVALIDATE, OP_RDMA_READ, OP_RDMA_WRITE, OP_RDMA_WRITE_IMM, OP_REGISTER,
    OP_SEND, OP_SEND_IMM, OP_SEND_INVALIDATE, Opcode,
};
use refault_abi::event::{
    EQE_SIZE, EVENT_COMPLETION, EVENT_CQ_ERROR, EVENT_PAGE_FAULT, EVENT_PORT, EVENT_QP, EVENT_SRQ, Eqe,
    FAULT_WRITE, PORT_EVENT_DOWN, PORT_EVENT_UP,
};
use refault_abi::queue::{
    CQE_GRH, CQE_INVALIDATED, CQE_IPV4, CQE_RECEIVE, CQE_SIZE, CQE_SOLICITED, CQE_VLAN, CQE_WITH_IMM, Cqe,
    CqeFlags, MAX_INLINE, QpDoorbellRecord, RQ_WQE_SIZE, RqWqe, SQ_WQE_SIZE, Sge, SqWqe, SrqDoorbellRecord,
    WQE_FENCE, WQE_HEAD_SIZE, WQE_INLINE, WQE_SIGNALED, WQE_SOLICITED,
};
use refault_bus::bits::{low_u8, low_u32};
use zerocopy::{FromZeros, IntoBytes};

use crate::cause::Cause;
use crate::memory::access::AccessError;
use crate::memory::page_table::Pages;
use crate::memory::port::Port;
use crate::queue::layout::{Ring, RingLayout, WorkRings};
use crate::queue::phase;
use crate::verbs::{
    Completion, Data, Destination, Event, Flush, MAX_MESSAGE, Operation, PageFault, Path, Piece, Pieces,
    ReceiveRequest, SendRequest,
};

/// Number of the only port.
const PORT: u32 = 1;

/// Byte offsets in doorbell records.
const RQ_PRODUCER: u64 = offset_of!(QpDoorbellRecord, rq_producer) as u64;
const QP_IN_ERROR: u64 = offset_of!(QpDoorbellRecord, in_error) as u64;
const SRQ_CONSUMER: u64 = offset_of!(SrqDoorbellRecord, consumer) as u64;

/// First part of a request, which is always read.
const HEAD: usize = WQE_HEAD_SIZE as usize;
/// Bytes of inline data and pieces in the first part of a send request, and pieces in that of a receive request.
const SEND_HEAD_INLINE: usize = HEAD - offset_of!(SqWqe, sge);
const SEND_HEAD_PIECES: usize = SEND_HEAD_INLINE / size_of::<Sge>();
const RECEIVE_HEAD_PIECES: usize = (HEAD - offset_of!(RqWqe, sge)) / size_of::<Sge>();

/// The layouts of `refault-abi`.
pub(crate) struct AbiRings;

impl RingLayout for AbiRings {
    fn send_producer(&self, port: &mut Port<'_>, rings: &WorkRings) -> Result<u32, AccessError> {
        port.pages_load_u32(&rings.pages, u64::from(rings.record_offset))
    }

    fn send_request(
        &self,
        port: &mut Port<'_>,
        rings: &WorkRings,
        index: u32,
        is_datagram: bool,
        request: &mut SendRequest,
    ) -> Result<bool, AccessError> {
        let mut wqe = SqWqe::new_zeroed();
        let at = entry(index, rings.log_sq, SQ_WQE_SIZE);
        port.pages_read(&rings.pages, at, &mut wqe.as_mut_bytes()[..HEAD])?;
        if usize::from(wqe.num_sge) > SEND_HEAD_PIECES || wqe.inline_length as usize > SEND_HEAD_INLINE {
            port.pages_read(&rings.pages, at + HEAD as u64, &mut wqe.as_mut_bytes()[HEAD..])?;
        }
        let is_sound = decode(&wqe, is_datagram, request).is_some();
        if !is_sound {
            *request = SendRequest::unexecuted(wqe.wr_id, wqe.opcode.0);
        }
        Ok(is_sound)
    }

    fn receive_producer(&self, port: &mut Port<'_>, rings: &WorkRings) -> Result<u32, AccessError> {
        port.pages_load_u32(&rings.pages, u64::from(rings.record_offset) + RQ_PRODUCER)
    }

    fn note_error(&self, port: &mut Port<'_>, rings: &WorkRings) -> Result<(), AccessError> {
        store(port, &rings.pages, u64::from(rings.record_offset) + QP_IN_ERROR, 1)?;
        // The driver publishes its index and then reads the word: one of the two sees the other's store.
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn receive_request(
        &self,
        port: &mut Port<'_>,
        rings: &WorkRings,
        index: u32,
    ) -> Result<ReceiveRequest, AccessError> {
        let at = u64::from(rings.rq_offset) + entry(index, rings.log_rq, RQ_WQE_SIZE);
        read_receive(port, &rings.pages, at)
    }

    fn arrived_opcode(&self, is_write: bool, has_immediate: bool) -> u8 {
        match (is_write, has_immediate) {
            (true, _) => OP_RDMA_WRITE_IMM.0,
            (false, true) => OP_SEND_IMM.0,
            (false, false) => OP_SEND.0,
        }
    }

    fn shared_producer(&self, port: &mut Port<'_>, ring: &Ring) -> Result<u32, AccessError> {
        port.pages_load_u32(&ring.pages, u64::from(ring.record_offset))
    }

    fn take_shared(
        &self,
        port: &mut Port<'_>,
        ring: &Ring,
        index: u32,
    ) -> Result<ReceiveRequest, AccessError> {
        let request = read_receive(port, &ring.pages, entry(index, ring.log, RQ_WQE_SIZE))?;
        store(port, &ring.pages, u64::from(ring.record_offset) + SRQ_CONSUMER, index.wrapping_add(1))?;
        Ok(request)
    }

    fn completion_consumer(&self, port: &mut Port<'_>, ring: &Ring) -> Result<u32, AccessError> {
        port.pages_load_u32(&ring.pages, u64::from(ring.record_offset))
    }

    fn write_completion(
        &self,
        port: &mut Port<'_>,
        ring: &Ring,
        index: u32,
        completion: &Completion,
    ) -> Result<(), AccessError> {
        let cqe = encode_completion(completion);
        // All but the owner word, which is published behind the rest.
        let bytes = &cqe.as_bytes()[..CQE_SIZE as usize - 4];
        port.pages_publish(&ring.pages, entry(index, ring.log, CQE_SIZE), bytes, phase(index, ring.log))
    }

    fn write_event(
        &self,
        port: &mut Port<'_>,
        ring: &Ring,
        index: u32,
        event: &Event,
    ) -> Result<(), AccessError> {
        let eqe = Eqe { timestamp_ns: port.fabric().now_ns(), ..encode_event(event) };
        let bytes = &eqe.as_bytes()[..EQE_SIZE as usize - 4];
        port.pages_publish(&ring.pages, entry(index, ring.log, EQE_SIZE), bytes, phase(index, ring.log))
    }
}

/// Publishes a word of a doorbell record.
fn store(port: &mut Port<'_>, pages: &Pages, offset: u64, value: u32) -> Result<(), AccessError> {
    let word = port.page(pages, offset, true)?.holding(4)?;
    Ok(port.fabric().memory.store_u32(word.gpa, value)?)
}

/// Byte offset of entry `index` in a ring of `1 << log` entries of `size` bytes.
fn entry(index: u32, log: u8, size: u32) -> u64 {
    u64::from(index & ((1 << log) - 1)) * u64::from(size)
}

fn read_receive(port: &mut Port<'_>, pages: &Pages, at: u64) -> Result<ReceiveRequest, AccessError> {
    let mut wqe = RqWqe::new_zeroed();
    port.pages_read(pages, at, &mut wqe.as_mut_bytes()[..HEAD])?;
    if wqe.num_sge as usize > RECEIVE_HEAD_PIECES {
        port.pages_read(pages, at + HEAD as u64, &mut wqe.as_mut_bytes()[HEAD..])?;
    }
    let mut pieces = Pieces::NONE;
    let used = wqe.sge.get(..wqe.num_sge as usize);
    let sound = used.is_some_and(|used| pieces.fill(used.iter().map(piece)));
    Ok(ReceiveRequest { id: wqe.wr_id, pieces: sound.then_some(pieces) })
}

fn piece(sge: &Sge) -> Piece {
    Piece { addr: sge.addr, length: sge.length, key: sge.lkey }
}

/// Decodes a send request, but for the destination of one that is no datagram; `None` if it is malformed, and nothing is
/// changed.
fn decode(wqe: &SqWqe, is_datagram: bool, request: &mut SendRequest) -> Option<()> {
    let operation = operation(wqe)?;
    let invalidates = wqe.opcode == OP_SEND_INVALIDATE;
    if is_datagram && (operation != Operation::Send || invalidates || wqe.has_grh > 1 || wqe.sl > 15) {
        return None;
    }
    let inline = wqe.flags.contains(WQE_INLINE);
    let length = match operation {
        Operation::Flush(flush) => flush_length(wqe, flush)?,
        _ if operation.is_local() && (wqe.num_sge != 0 || inline) => return None,
        _ => data_length(wqe, operation)?,
    };
    let fits = if operation.is_word() { length == 8 } else { length <= MAX_MESSAGE };
    if !fits {
        return None;
    }
    let length = u32::try_from(length).ok()?;
    (request.id, request.opcode) = (wqe.wr_id, wqe.opcode.0);
    request.operation = operation;
    request.signaled = wqe.flags.contains(WQE_SIGNALED);
    request.solicited = wqe.flags.contains(WQE_SOLICITED);
    request.fence = wqe.flags.contains(WQE_FENCE);
    let with_immediate = matches!(wqe.opcode, OP_SEND_IMM | OP_RDMA_WRITE_IMM);
    request.immediate = with_immediate.then_some(wqe.imm);
    request.invalidate = invalidates.then_some(wqe.imm);
    request.length = length;
    if inline {
        request.data = inline_data(wqe);
    } else {
        request.data.fill(wqe.sge.iter().take(usize::from(wqe.num_sge)).map(piece));
    }
    (request.remote_addr, request.rkey) = (wqe.remote_addr, wqe.rkey);
    if is_datagram {
        request.destination = destination(wqe);
    }
    Some(())
}

fn operation(wqe: &SqWqe) -> Option<Operation> {
    Some(match wqe.opcode {
        OP_SEND | OP_SEND_IMM | OP_SEND_INVALIDATE => Operation::Send,
        OP_RDMA_WRITE => Operation::Write,
        OP_RDMA_WRITE_IMM => Operation::WriteImm,
        OP_RDMA_READ => Operation::Read,
        OP_COMPARE_SWAP => Operation::CompareSwap { expected: wqe.compare_add, new: wqe.swap },
        OP_FETCH_ADD => Operation::FetchAdd { addend: wqe.compare_add },
        OP_FLUSH => Operation::Flush(Flush {
            global: wqe.imm & FLUSH_GLOBAL != 0,
            persistent: wqe.imm & FLUSH_PERSISTENT != 0,
            whole_region: wqe.imm & FLUSH_RANGE == 0,
        }),
        OP_ATOMIC_WRITE => Operation::AtomicWrite,
        OP_REGISTER => Operation::Register {
            length: wqe.compare_add,
            first_offset: low_u32(wqe.swap),
            access: AccessRights(wqe.imm),
        },
        OP_LOCAL_INVALIDATE => Operation::Invalidate { key: wqe.imm },
        _ => return None,
    })
}

/// Bytes of the local data; `None` if there are more pieces or bytes than fit, or both kinds of data.
fn data_length(wqe: &SqWqe, operation: Operation) -> Option<u64> {
    let pieces = wqe.sge.get(..usize::from(wqe.num_sge))?;
    if !wqe.flags.contains(WQE_INLINE) {
        return Some(pieces.iter().map(|piece| u64::from(piece.length)).sum());
    }
    let fits = wqe.inline_length <= MAX_INLINE && pieces.is_empty() && !operation.fetches();
    fits.then_some(u64::from(wqe.inline_length))
}

fn inline_data(wqe: &SqWqe) -> Data {
    let mut bytes = [0; MAX_INLINE as usize];
    let used = wqe.inline_length as usize;
    bytes[..used].copy_from_slice(&wqe.sge.as_bytes()[..used]);
    Data::Inline(bytes)
}

/// Bytes of a FLUSH, which has no data; those of a whole region are known when it is found. `None` if the request is
/// malformed.
fn flush_length(wqe: &SqWqe, flush: Flush) -> Option<u64> {
    const PLACEMENTS: u32 = FLUSH_GLOBAL | FLUSH_PERSISTENT;
    let sound = wqe.imm & PLACEMENTS != 0 && wqe.imm & !(PLACEMENTS | FLUSH_RANGE) == 0;
    let without_data = wqe.num_sge == 0 && !wqe.flags.contains(WQE_INLINE);
    let length = if flush.whole_region { 0 } else { wqe.compare_add };
    (sound && without_data).then_some(length)
}

fn destination(wqe: &SqWqe) -> Destination {
    let mut gid = [0; 16];
    gid[..8].copy_from_slice(&wqe.compare_add.to_le_bytes());
    gid[8..].copy_from_slice(&wqe.swap.to_le_bytes());
    Destination {
        qpn: wqe.dest_qpn,
        qkey: wqe.qkey,
        lid: wqe.dest_lid,
        sl: wqe.sl,
        has_grh: wqe.has_grh != 0,
        gid,
        path: path(wqe),
    }
}

/// The path of a datagram on Ethernet.
fn path(wqe: &SqWqe) -> Path {
    let [m0, m1, m2, m3, m4, m5, sgid_index, hop_limit] = wqe.remote_addr.to_le_bytes();
    Path {
        dmac: [m0, m1, m2, m3, m4, m5],
        sgid_index,
        hop_limit,
        traffic_class: low_u8(u64::from(wqe.rkey >> 20)),
        source_port: wqe.source_port,
        flow_label: wqe.rkey & 0xf_ffff,
    }
}

fn encode_completion(completion: &Completion) -> Cqe {
    let flag = |on: bool, flag| if on { flag } else { CqeFlags::NONE };
    Cqe {
        wr_id: completion.id,
        timestamp_ns: completion.timestamp_ns,
        qpn: completion.qpn,
        src_qpn: completion.src_qpn,
        byte_len: completion.length,
        imm: completion.immediate.or(completion.invalidated).unwrap_or(0),
        wqe_index: completion.index,
        vendor_error: completion.cause.map_or(CAUSE_NONE, Cause::code),
        status: completion.status,
        opcode: Opcode(completion.opcode),
        flags: flag(completion.immediate.is_some(), CQE_WITH_IMM)
            | flag(completion.is_receive, CQE_RECEIVE)
            | flag(completion.solicited, CQE_SOLICITED)
            | flag(completion.with_grh, CQE_GRH)
            | flag(completion.by_ipv4, CQE_IPV4)
            | flag(completion.invalidated.is_some(), CQE_INVALIDATED)
            | flag(completion.vlan.is_some(), CQE_VLAN),
        sl: completion.sl,
        vlan: completion.vlan.unwrap_or(0),
        src_lid: completion.src_lid,
        ..Cqe::new_zeroed()
    }
}

fn encode_event(event: &Event) -> Eqe {
    let about = |kind, code, number| Eqe { kind, code, number, ..Eqe::default() };
    match *event {
        Event::Completion { cqn } => about(EVENT_COMPLETION, 0, cqn),
        Event::CqError { cqn } => about(EVENT_CQ_ERROR, 0, cqn),
        Event::QueuePair { qpn, code } => about(EVENT_QP, code.0, qpn),
        Event::SharedQueue { srqn, code } => about(EVENT_SRQ, code.0, srqn),
        Event::Port { up } => about(EVENT_PORT, if up { PORT_EVENT_UP.0 } else { PORT_EVENT_DOWN.0 }, PORT),
        Event::PageFault(PageFault { key, address, length, write, token }) => {
            let code = if write { FAULT_WRITE } else { 0 };
            Eqe { address, length, token, ..about(EVENT_PAGE_FAULT, code, key) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(wqe: &SqWqe, is_datagram: bool) -> Option<SendRequest> {
        let mut request = SendRequest::NONE;
        super::decode(wqe, is_datagram, &mut request).map(|()| request)
    }

    fn wqe(opcode: Opcode, lengths: &[u32]) -> SqWqe {
        let num_sge = u8::try_from(lengths.len()).unwrap();
        let mut wqe = SqWqe { opcode, num_sge, ..SqWqe::default() };
        for (sge, &length) in wqe.sge.iter_mut().zip(lengths) {
            sge.length = length;
        }
        wqe
    }

    #[test]
    fn malformed_requests_are_refused() {
        let inline = |opcode, inline_length, num_sge| SqWqe {
            opcode,
            num_sge,
            inline_length,
            flags: WQE_INLINE,
            ..SqWqe::default()
        };
        for bad in [
            wqe(Opcode(12), &[]),
            wqe(OP_REGISTER, &[8]),
            inline(OP_LOCAL_INVALIDATE, 8, 0),
            wqe(OP_FLUSH, &[]),
            SqWqe { imm: FLUSH_GLOBAL | 1 << 9, ..wqe(OP_FLUSH, &[]) },
            SqWqe { imm: FLUSH_RANGE, ..wqe(OP_FLUSH, &[]) },
            SqWqe { imm: FLUSH_GLOBAL, ..wqe(OP_FLUSH, &[0]) },
            SqWqe { imm: FLUSH_GLOBAL | FLUSH_RANGE, compare_add: 1 << 32, ..wqe(OP_FLUSH, &[]) },
            inline(OP_FLUSH, 0, 0),
            wqe(OP_ATOMIC_WRITE, &[4]),
            inline(OP_ATOMIC_WRITE, 9, 0),
            SqWqe { num_sge: 13, ..SqWqe::default() },
            wqe(OP_SEND, &[u32::MAX, u32::MAX]),
            wqe(OP_RDMA_WRITE, &[1 << 31, 1]),
            wqe(OP_COMPARE_SWAP, &[4]),
            wqe(OP_FETCH_ADD, &[]),
            inline(OP_SEND, MAX_INLINE + 1, 0),
            inline(OP_SEND, 8, 1),
            inline(OP_RDMA_READ, 8, 0),
        ] {
            assert!(decode(&bad, false).is_none(), "{bad:?}");
        }
    }

    /// All that a request means; what an earlier one left behind its list does not count.
    fn meaning(request: &SendRequest) -> String {
        let SendRequest { id, opcode, operation, signaled, solicited, fence, immediate, invalidate, .. } =
            request;
        let flags = (id, opcode, operation, signaled, solicited, fence, immediate, invalidate);
        let memory = (request.pieces(), request.inline(), request.length, request.remote());
        format!("{flags:?} {memory:?} {:?}", request.destination)
    }

    #[test]
    fn nothing_of_an_earlier_request_is_left() {
        let long = wqe(OP_SEND_IMM, &[7; 12]);
        let inline = SqWqe { flags: WQE_INLINE, inline_length: 192, ..wqe(OP_RDMA_WRITE, &[]) };
        let requests = [
            SqWqe { imm: 9, wr_id: 3, flags: WQE_SIGNALED | WQE_SOLICITED | WQE_FENCE, ..long },
            SqWqe { remote_addr: 1 << 40, rkey: 77, ..inline },
            SqWqe { imm: 5, ..wqe(OP_SEND_INVALIDATE, &[1]) },
            SqWqe { flags: WQE_INLINE, inline_length: 8, ..wqe(OP_ATOMIC_WRITE, &[]) },
            SqWqe { compare_add: 4, swap: 6, ..wqe(OP_COMPARE_SWAP, &[8]) },
            wqe(OP_RDMA_READ, &[1, 2, 3, 4, 5]),
            wqe(OP_LOCAL_INVALIDATE, &[]),
            SqWqe { imm: FLUSH_GLOBAL, ..wqe(OP_FLUSH, &[]) },
            wqe(OP_SEND, &[]),
        ];
        for earlier in &requests {
            for later in &requests {
                let mut request = decode(earlier, false).expect("well-formed");
                super::decode(later, false, &mut request).expect("well-formed");
                let alone = decode(later, false).expect("well-formed");
                assert_eq!(meaning(&request), meaning(&alone), "after {earlier:?}");
            }
        }
    }

    #[test]
    fn a_datagram_is_a_send() {
        assert!(decode(&wqe(OP_SEND_IMM, &[5]), true).is_some());
        let bad_path = [SqWqe { has_grh: 2, ..SqWqe::default() }, SqWqe { sl: 16, ..SqWqe::default() }];
        let operations = [OP_RDMA_WRITE, OP_RDMA_WRITE_IMM, OP_RDMA_READ, OP_SEND_INVALIDATE]
            .map(|opcode| wqe(opcode, &[]));
        for bad in bad_path.into_iter().chain(operations) {
            assert!(decode(&bad, false).is_some(), "{bad:?}");
            assert!(decode(&bad, true).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn well_formed_requests_have_their_length() {
        assert_eq!(decode(&wqe(OP_SEND, &[]), false).unwrap().length, 0);
        assert_eq!(decode(&wqe(OP_RDMA_WRITE, &[1 << 30, 1 << 30]), false).unwrap().length, 1 << 31);
        assert_eq!(decode(&wqe(OP_FETCH_ADD, &[3, 5]), false).unwrap().length, 8);
        let inline = SqWqe { flags: WQE_INLINE, inline_length: 64, ..SqWqe::default() };
        assert_eq!(decode(&inline, false).unwrap().inline().unwrap().len(), 64);
    }

    #[test]
    fn a_gid_lies_in_the_request_in_the_order_of_the_wire() {
        let gid = *b"0123456789abcdef";
        let half = |from: usize| u64::from_le_bytes(gid[from..from + 8].try_into().unwrap());
        let wqe = SqWqe { compare_add: half(0), swap: half(8), ..SqWqe::default() };
        assert_eq!(destination(&wqe).gid, gid);
        assert_eq!(wqe.as_bytes()[32..48], gid);
    }
}
