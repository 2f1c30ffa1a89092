//! What ends in the middle: queue pairs, contexts, regions and pages with frames in flight.

use refault_abi::codes::{
    ACCESS_LOCAL_WRITE, QPS_RESET, WC_LOC_PROT_ERR, WC_REM_ACCESS_ERR, WC_SUCCESS, WC_WR_FLUSH_ERR,
};
use refault_abi::command::{CMD_REVOKE_MR, CMD_STOP_CONTEXT};
use refault_bus::pri::PageRequest;
use refault_roce::{Nak, Operation::*, Place::*, Reth, Syndrome};

use super::peer::*;
use super::*;

const ACK: Syndrome = Syndrome::ACK;
const DENIED: Syndrome = Syndrome::Nak(Nak::RemoteAccess);

impl Script {
    /// A place in the process' heap.
    fn in_heap(&self, offset: u64, length: u32) -> Reth {
        Reth { address: HEAP + offset, key: self.station.pair.process, length }
    }

    /// A WRITE to the heap, whose page is missing.
    fn write_to_heap(&self, psn: u32) -> Packet {
        Packet { reth: self.in_heap(0, 8), ..self.packet(Write, Only, psn) }
    }

    fn page_request(&self) -> PageRequest {
        let asked = self.bench().iommu.take_requests();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0]
    }

    /// The page comes, if anything still waits for it.
    fn brings(&self, asked: &PageRequest) -> u64 {
        let page = self.station.pair.map_page(HEAP, true);
        self.bench().iommu.answer(asked, ResponseCode::Success);
        self.bench().settle();
        page
    }
}

/// A script with requests that wait for a page, and more behind them in the inbox.
fn waiting() -> (Script, PageRequest) {
    let script = Script::new();
    script.says(&script.write_to_heap(9), &[1; 8]);
    script.says(&script.write_to_heap(10), &[2; 8]);
    let asked = script.page_request();
    script.leaves(&script.write_to_heap(11), &[3; 8]);
    (script, asked)
}

#[test]
fn a_queue_pair_that_is_destroyed_takes_its_frames_with_it() {
    let (script, asked) = waiting();
    script.station.pair.a.destroy(script.bench()).unwrap();
    let page = script.brings(&asked);
    assert!(script.is_silent());
    assert_eq!(script.bench().bytes(page, 8), [0; 8]);
    script.says(&script.write_to_heap(9), &[1; 8]);
    assert!(script.is_silent() && script.station.frames().unexpected == 1);
}

#[test]
fn a_reset_begins_with_nothing_of_the_connection_before() {
    let (script, asked) = waiting();
    script.station.pair.a.to(script.bench(), QPS_RESET);
    script.connect(ModifyQp { rq_psn: 10, ..BUSY }, QPS_RTS);
    let page = script.brings(&asked);
    assert!(script.is_silent(), "what was kept is not of this connection");
    assert_eq!(script.bench().bytes(page, 8), [0; 8]);
    script.says(&script.write_to_heap(10), &[4; 8]);
    assert_eq!((script.syndromes(), script.bench().bytes(page, 8)), (vec![(10, ACK)], vec![4; 8]));
}

#[test]
fn a_context_that_is_stopped_answers_nothing() {
    let (mut script, asked) = waiting();
    let write = script.station.pair.write(1, 8, 0x5000, 7);
    script.posts(&write);
    script.heard();
    script.bench().urgent_command(CMD_STOP_CONTEXT, script.station.pair.context).unwrap();
    let page = script.brings(&asked);
    script.says(&script.write(Only, 9, 8), &[1; 8]);
    script.acknowledges(9);
    assert!(script.is_silent());
    assert_eq!((script.bench().bytes(page, 8), script.target(0, 8)), (vec![0; 8], vec![0; 8]));
    assert_eq!(script.completions(), [(1, WC_WR_FLUSH_ERR)]);
}

#[test]
fn a_device_that_is_reset_drops_what_it_had() {
    let (script, asked) = waiting();
    script.bench().write32(refault_abi::regs::REG_CONTROL, refault_abi::regs::CONTROL_RESET);
    let page = script.brings(&asked);
    script.says(&script.write_to_heap(9), &[1; 8]);
    assert!(script.is_silent());
    assert_eq!(script.bench().bytes(page, 8), [0; 8]);
    assert!(script.bench().nic.has_room(), "no frame waits");
}

#[test]
fn a_region_that_is_revoked_takes_no_more_of_a_message() {
    let script = Script::new();
    let Pair { rkey, .. } = script.station.pair;
    script.says(&script.write(First, 9, 2500), &[1; MTU]);
    script.bench().urgent_command(CMD_REVOKE_MR, rkey).unwrap();
    script.says(&script.write(Middle, 10, 2500), &[2; MTU]);
    script.says(&script.write(Last, 11, 2500), &[3; 452]);
    assert_eq!(script.syndromes(), [(10, DENIED)]);
    assert_eq!(script.target(0, 2500), [vec![1; MTU], vec![0; 1476]].concat());
    assert_eq!(script.state(), QPS_ERR);
}

#[test]
fn a_region_that_is_revoked_gives_nothing_to_a_read_that_is_repeated() {
    let script = Script::new();
    script.bench().fill(script.station.pair.to, &[1; 2500]);
    script.says(&script.read(9, 0, 2500), &[]);
    assert_eq!(script.responses().len(), 3);
    script.bench().urgent_command(CMD_REVOKE_MR, script.station.pair.rkey).unwrap();
    script.says(&script.read(10, 1024, 1476), &[]);
    assert_eq!(script.syndromes(), [(10, DENIED)]);
}

#[test]
fn a_region_that_is_revoked_takes_no_response() {
    let mut script = Script::new();
    let Pair { to, rkey, .. } = script.station.pair;
    let read = SqWqe { remote_addr: 0x5000, rkey: 7, ..request(OP_RDMA_READ, 1, &[sge(to, 2000, rkey)]) };
    script.posts(&read);
    script.says(&script.answer(ReadResponse, First, 9, ACK), &[1; MTU]);
    script.bench().urgent_command(CMD_REVOKE_MR, rkey).unwrap();
    script.says(&script.answer(ReadResponse, Last, 10, ACK), &[2; 976]);
    assert_eq!(script.completions(), [(1, WC_LOC_PROT_ERR)]);
    assert_eq!(script.target(0, 2000), [vec![1; MTU], vec![0; 976]].concat());
}

#[test]
fn a_page_that_is_taken_in_the_middle_of_a_message_is_asked_for_again() {
    let script = Script::new();
    let before = script.station.pair.map_page(HEAP, true);
    let begin = Packet { reth: script.in_heap(0, 2500), ..script.packet(Write, First, 9) };
    script.says(&begin, &[1; MTU]);
    script.bench().iommu.unmap(PASID, HEAP);
    script.says(&script.write(Middle, 10, 2500), &[2; MTU]);
    script.says(&script.write(Last, 11, 2500), &[3; 452]);
    assert!(script.is_silent());
    let page = script.brings(&script.page_request());
    assert_eq!(script.syndromes(), [(11, ACK)]);
    assert_eq!(script.bench().bytes(before, 2500), [vec![1; MTU], vec![0; 1476]].concat());
    assert_eq!(script.bench().bytes(page, 2500), [vec![0; MTU], vec![2; MTU], vec![3; 452]].concat());
}

#[test]
fn a_page_that_is_taken_before_its_response_comes_is_asked_for_and_so_is_the_response() {
    let mut script = Script::new();
    let before = script.station.pair.map_page(HEAP, true);
    let process = script.station.pair.process;
    let read = SqWqe { remote_addr: 0x5000, rkey: 7, ..request(OP_RDMA_READ, 1, &[sge(HEAP, 8, process)]) };
    script.posts(&read);
    assert_eq!(script.requests(), [9]);
    script.bench().iommu.unmap(PASID, HEAP);
    script.says(&script.answer(ReadResponse, Only, 9, ACK), &[1; 8]);
    assert!(script.is_silent());
    let page = script.brings(&script.page_request());
    assert_eq!(script.requests(), [9], "the bytes are not kept");
    script.says(&script.answer(ReadResponse, Only, 9, ACK), &[2; 8]);
    assert_eq!(script.completions(), [(1, WC_SUCCESS)]);
    assert_eq!((script.bench().bytes(page, 8), script.bench().bytes(before, 8)), (vec![2; 8], vec![0; 8]));
}

#[test]
fn what_no_region_lets_peers_reach_stays_as_it_is() {
    let mut script = Script::new();
    let Pair { to, pd, .. } = script.station.pair;
    let own = script.bench().pinned(pd, to, to, BUFFER, ACCESS_LOCAL_WRITE);
    script.bench().fill(to, &[6; 16]);
    let denied = |script: &Script, packet: Packet, payload: &[u8]| {
        script.says(&packet, payload);
        assert_eq!(script.syndromes(), [(9, DENIED)], "{packet:?}");
        assert_eq!(script.target(0, 16), [6; 16]);
        script.station.pair.a.to(script.bench(), QPS_RESET);
        script.connect(BUSY, QPS_RTS);
    };
    let reth = Reth { address: to, key: own, length: 8 };
    let fetch = script.fetch_add(9);
    denied(&script, Packet { reth, ..script.packet(Write, Only, 9) }, &[1; 8]);
    denied(&script, Packet { reth, ..script.packet(ReadRequest, Only, 9) }, &[]);
    denied(&script, Packet { reth, ..script.packet(AtomicWrite, Only, 9) }, &[1; 8]);
    denied(&script, Packet { atomic: refault_roce::AtomicEth { key: own, ..fetch.atomic }, ..fetch }, &[]);
    // Its owner may.
    let write = request(refault_abi::codes::OP_RDMA_WRITE, 1, &[sge(to, 8, own)]);
    script.posts(&SqWqe { remote_addr: 0x5000, rkey: 7, ..write });
    assert_eq!(script.heard()[0].payload, [6; 8]);
    script.refuses(9, Nak::RemoteAccess);
    assert_eq!(script.completions(), [(1, WC_REM_ACCESS_ERR)]);
}

#[test]
fn frames_for_a_connection_to_the_port_itself_do_not_pile_up() {
    let station = Station::new(1);
    station.pair.a.raise(&station.pair.bench, station.pair.b.qpn, QPS_RTS, path_to(1));
    station.pair.b.raise(&station.pair.bench, station.pair.a.qpn, QPS_RTS, path_to(1));
    let script = Script { station };
    for _ in 0..1100 {
        script.leaves(&script.write(Only, 9, 8), &[1; 8]);
    }
    script.bench().settle();
    assert!(script.bench().nic.has_room(), "the wire would stop for good");
    let frames = script.station.frames();
    assert_eq!((frames.unexpected + frames.overflow, script.target(0, 8)), (1100, vec![0; 8]));
}

#[test]
fn without_its_gid_a_connection_sends_nothing() {
    let mut script = Script::new();
    script.station.set(CMD_SET_GID, &SetGid { present: 0, ..set_gid(1, 1) }).unwrap();
    let write = script.station.pair.write(1, 8, 0x5000, 7);
    script.posts(&write);
    let frames = script.station.frames();
    assert_eq!((frames.sent, frames.unsent, script.is_silent()), (0, 1, true));
    script.station.set(CMD_SET_GID, &set_gid(1, 1)).unwrap();
    script.bench().advance(TIMEOUT_NS);
    assert_eq!(script.requests(), [9]);
}

#[test]
fn a_tag_of_priority_alone_is_of_no_vlan() {
    let (mut one, mut two) = (Station::new(1), Station::new(2));
    let (mut a, mut b) = (one.queue_pair(QPT_UD), two.queue_pair(QPT_UD));
    b.receive(&two.pair.bench, 5, &[sge(two.pair.to, 1000, two.pair.rkey)]);
    a.send(&one.pair.bench, &datagram_to(2, 1, b.qpn, &[one.pair.source(0, 100)]));
    settle_with([&one, &two], |frame| {
        let tagged = [&frame.bytes[..12], &[0x81, 0, 0x60, 0], &frame.bytes[12..]].concat();
        Some(EthernetFrame { bytes: tagged, ..frame })
    });
    one.pair.cq_a.expect(&one.pair.bench, WC_SUCCESS);
    let got = two.pair.cq_a.expect(&two.pair.bench, WC_SUCCESS);
    assert_eq!((got.flags, got.vlan), (CQE_RECEIVE | CQE_GRH | CQE_IPV4, 0));
}
