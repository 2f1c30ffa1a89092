//! Ends of a wire that do not keep up: what is to be sent waits, and takes no worker meanwhile.

use refault_bus::clock::Clock;
use refault_nic::PacketConfig;
use refault_roce::{Operation::Write, Place::Only, Reth};

use super::peer::*;
use super::*;

/// Longer than the NIC waits before it looks at the wire again.
const A_WHILE_NS: u64 = 1_000_000;

impl Station {
    fn set_busy(&self, is_busy: bool) {
        self.sends.is_busy.store(is_busy, Ordering::Relaxed);
    }
}

/// Settles, which ends although there is something to send, and looks at the wire again in a while.
fn waits(bench: &Bench) {
    bench.settle();
    let look_ns = bench.next_deadline_ns().expect("it looks again");
    assert!((1..A_WHILE_NS).contains(&(look_ns - bench.clock.now_ns())), "at once, or too late");
}

#[test]
fn requests_wait_for_the_wire() {
    let mut script = Script::new();
    script.station.set_busy(true);
    script.posts(&script.station.pair.write(1, 8, 0x5000, 7));
    waits(script.bench());
    assert!(script.is_silent());
    script.station.set_busy(false);
    script.bench().advance(A_WHILE_NS);
    assert_eq!(script.requests(), [9]);
    script.acknowledges(9);
    assert_eq!(script.completions(), [(1, WC_SUCCESS)]);
}

#[test]
fn answers_wait_for_the_wire() {
    let script = Script::new();
    script.station.set_busy(true);
    script.says(&script.write(Only, 9, 8), &[7; 8]);
    waits(script.bench());
    assert_eq!(script.target(0, 8), [7; 8], "it is done");
    assert!(script.is_silent());
    script.station.set_busy(false);
    script.bench().advance(A_WHILE_NS);
    assert_eq!(script.syndromes().len(), 1);
}

#[test]
fn a_requester_gives_up_though_the_wire_is_busy_with_an_answer_at_hand() {
    let mut script = Script::new();
    script.posts(&script.station.pair.write(1, 8, 0x5000, 7));
    assert_eq!(script.requests(), [9]);
    script.station.set_busy(true);
    script.says(&script.write(Only, 9, 8), &[7; 8]);
    for _ in 0..20 {
        script.bench().advance(TIMEOUT_NS);
        script.bench().settle();
    }
    assert_eq!(script.completions(), [(1, WC_RETRY_EXC_ERR)]);
}

#[test]
fn datagrams_wait_for_the_wire() {
    let mut station = Station::new(1);
    let mut qp = station.queue_pair(QPT_UD);
    station.set_busy(true);
    qp.send(&station.pair.bench, &datagram_to(2, 1, 77, &[station.pair.source(0, 100)]));
    waits(&station.pair.bench);
    assert!(station.sends.take().is_none() && station.pair.cq_a.drain(&station.pair.bench).is_empty());
    station.set_busy(false);
    station.pair.bench.advance(A_WHILE_NS);
    assert!(station.sends.take().is_some());
    station.pair.cq_a.expect(&station.pair.bench, WC_SUCCESS);
}

#[test]
fn the_port_has_no_room_while_more_is_kept_for_pages_than_it_should() {
    let packets = PacketConfig { pause_above: Some(100), ..PacketConfig::default() };
    let script = Script::with(NicConfig { packets, ..config(1) }, BUSY, QPS_RTS);
    let reth = Reth { address: HEAP, key: script.station.pair.process, length: 8 };
    let has_room = || script.bench().nic.has_room();
    script.says(&Packet { reth, ..script.packet(Write, Only, 9) }, &[1; 8]);
    assert!(has_room(), "one packet is less");
    script.says(&Packet { reth, ..script.packet(Write, Only, 10) }, &[2; 8]);
    assert!(!has_room());
    script.station.pair.map_page(HEAP, true);
    let asked = script.bench().iommu.take_requests();
    script.bench().iommu.answer(&asked[0], ResponseCode::Success);
    script.bench().settle();
    assert!(has_room());
}
