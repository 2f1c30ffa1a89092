//! A page that is missing in the middle of a peer's request, for each policy of the responder.

use refault_abi::codes::WC_SUCCESS;
use refault_bus::pri::PageRequest;
use refault_nic::RemoteFaults::{self, *};
use refault_roce::{Nak, Operation::*, Place::*, Reth, Syndrome};

use super::peer::*;
use super::*;

const ACK: Syndrome = Syndrome::ACK;
const GAP: Syndrome = Syndrome::Nak(Nak::Sequence);
/// Of the queue pair.
const NOT_READY: Syndrome = Syndrome::ReceiverNotReady(12);
/// A responder's that will say when it is ready.
const NOT_READY_LONG: Syndrome = Syndrome::ReceiverNotReady(20);
const ALL: [RemoteFaults; 4] = [Stall, Rnr, Drop, ResumeNak];

/// A connection whose second page of the heap is missing.
struct Fault {
    script: Script,
    policy: RemoteFaults,
    first: u64,
}

impl Fault {
    fn new(policy: RemoteFaults) -> Self {
        let config = NicConfig { remote_faults: policy, ..config(1) };
        let script = Script::with(config, BUSY, QPS_RTS);
        let first = script.station.pair.map_page(HEAP, true);
        Self { script, policy, first }
    }

    /// 2500 bytes, the last 476 of them in the second page.
    fn reth(&self) -> Reth {
        Reth { address: HEAP + 0x1000 - 2024, key: self.script.station.pair.process, length: 2500 }
    }

    /// What is said at once about packet `psn`, whose page is missing.
    fn expect_refusal(&self, psn: u32) {
        let expected = match self.policy {
            Stall | Drop => None,
            Rnr => Some((psn, NOT_READY)),
            ResumeNak => Some((psn, NOT_READY_LONG)),
        };
        assert_eq!(self.script.syndromes(), Vec::from_iter(expected), "{:?}", self.policy);
    }

    fn page_request(&self) -> PageRequest {
        let asked = self.script.bench().iommu.take_requests();
        assert_eq!(asked.len(), 1, "{:?}: {asked:?}", self.policy);
        asked[0]
    }

    /// The second page comes: the answer that the peer gets then.
    fn brings(&self, psn: u32) -> u64 {
        let asked = self.page_request();
        let page = self.script.station.pair.map_page(HEAP + 0x1000, true);
        self.script.bench().iommu.answer(&asked, ResponseCode::Success);
        self.script.bench().settle();
        if self.policy == ResumeNak {
            assert_eq!(self.script.syndromes(), [(psn, GAP)], "the NAK leaves at once");
        }
        page
    }
}

#[test]
fn a_write_goes_on_where_its_page_was_missing() {
    let parts = [bytes(1, MTU), bytes(2, MTU), bytes(3, 452)];
    for policy in ALL {
        let fault = Fault::new(policy);
        let script = &fault.script;
        let begin = Packet { reth: fault.reth(), ..script.packet(Write, First, 9) };
        let packets = [begin, script.packet(Write, Middle, 10), script.packet(Write, Last, 11)];
        script.says(&packets[0], &parts[0]);
        script.says(&packets[1], &parts[1]);
        fault.expect_refusal(10);
        let start = fault.first + 0x1000 - 2024;
        assert_eq!(script.bench().bytes(start, 2024), [&parts[0][..], &[0; 1000]].concat(), "{policy:?}");
        script.says(&packets[2], &parts[2]);
        // Only `Drop` left packet 10 without an answer: packet 11 shows the gap.
        let naks = if policy == Drop { vec![(10, GAP)] } else { vec![] };
        assert_eq!(script.syndromes(), naks, "{policy:?}");
        if policy == Stall {
            // A peer that loses patience: all three again, while two of them are kept.
            packets.iter().zip(&parts).for_each(|(packet, part)| script.says(packet, part));
            assert!(script.is_silent());
        }
        let page = fault.brings(10);
        if policy != Stall {
            script.says(&packets[1], &parts[1]);
            script.says(&packets[2], &parts[2]);
        }
        assert_eq!(script.syndromes().last(), Some(&(11, ACK)), "{policy:?}");
        let whole = parts.concat();
        assert_eq!(script.bench().bytes(start, 2024), whole[..2024], "{policy:?}");
        assert_eq!(script.bench().bytes(page, 476), whole[2024..], "{policy:?}");
        script.says(&Packet { reth: script.named(0), ..script.packet(Write, Only, 12) }, &[]);
        assert_eq!(script.syndromes(), [(12, ACK)], "{policy:?}");
    }
}

#[test]
fn a_read_is_answered_when_its_page_is_there() {
    for policy in ALL {
        let fault = Fault::new(policy);
        let script = &fault.script;
        script.bench().fill(fault.first, &[5; 0x1000]);
        let read = Packet { reth: fault.reth(), ..script.packet(ReadRequest, Only, 9) };
        script.says(&read, &[]);
        if policy == Stall {
            let begun = script.responses();
            assert_eq!(begun, [(First, 9, vec![5; MTU])], "what is there goes out");
        } else {
            fault.expect_refusal(9);
        }
        let page = fault.brings(9);
        let left = if policy == Stall {
            vec![(Middle, 10, vec![5; 1000]), (Last, 11, Vec::new())]
        } else {
            script.says(&read, &[]);
            vec![(First, 9, vec![5; MTU]), (Middle, 10, vec![5; 1000]), (Last, 11, Vec::new())]
        };
        let mut expected = left;
        expected.iter_mut().for_each(|(place, _, payload)| {
            payload.resize(if *place == Last { 452 } else { MTU }, 0);
        });
        assert_eq!(script.responses(), expected, "{policy:?}");
        assert_eq!(script.bench().bytes(page, 8), [0; 8]);
        assert_eq!(script.state(), QPS_RTS, "{policy:?}");
    }
}

#[test]
fn a_send_keeps_its_receive_request_until_the_page_is_there() {
    for policy in ALL {
        let mut fault = Fault::new(policy);
        let (reth, process) = (fault.reth(), fault.script.station.pair.process);
        let Pair { a, bench, .. } = &mut fault.script.station.pair;
        a.receive(bench, 1, &[sge(reth.address, 2500, process)]);
        a.receive(bench, 2, &[sge(HEAP, 100, process)]);
        let script = &fault.script;
        let parts = [bytes(1, MTU), bytes(2, MTU), bytes(3, 452)];
        script.says(&script.packet(Send, First, 9), &parts[0]);
        script.says(&script.packet(Send, Middle, 10), &parts[1]);
        fault.expect_refusal(10);
        let page = fault.brings(10);
        let script = &mut fault.script;
        if policy != Stall {
            script.says(&script.packet(Send, Middle, 10), &parts[1]);
        }
        script.says(&script.packet(Send, Last, 11), &parts[2]);
        assert_eq!(script.syndromes(), [(11, ACK)], "{policy:?}");
        assert_eq!(script.completions(), [(1, WC_SUCCESS)], "{policy:?}");
        assert_eq!(script.bench().bytes(page, 476), parts.concat()[2024..], "{policy:?}");
        script.says(&script.packet(Send, Only, 12), &[4; 8]);
        assert_eq!(script.completions(), [(2, WC_SUCCESS)], "{policy:?}");
    }
}

#[test]
fn a_page_that_is_refused_ends_the_connection() {
    for policy in ALL {
        let fault = Fault::new(policy);
        let script = &fault.script;
        let write = Packet {
            reth: Reth { length: 8, address: HEAP + 0x1000, ..fault.reth() },
            ..script.packet(Write, Only, 9)
        };
        script.says(&write, &[1; 8]);
        fault.expect_refusal(9);
        script.bench().iommu.answer(&fault.page_request(), ResponseCode::InvalidRequest);
        script.bench().settle();
        if policy != Stall {
            script.heard();
            script.says(&write, &[1; 8]);
        }
        assert_eq!(script.syndromes(), [(9, Syndrome::Nak(Nak::RemoteAccess))], "{policy:?}");
        assert_eq!(script.state(), QPS_ERR, "{policy:?}");
    }
}

#[test]
fn what_is_kept_for_a_page_is_bounded_and_the_rest_comes_again() {
    let fault = Fault::new(Stall);
    let script = &fault.script;
    let write = |psn| Packet {
        reth: Reth { address: HEAP + 0x1000, length: MTU as u32, ..fault.reth() },
        ..script.packet(Write, Only, psn)
    };
    for psn in 0..2000 {
        script.says(&write(9 + psn), &[psn as u8; MTU]);
    }
    assert!(script.is_silent());
    let stats = script.bench().nic.stats();
    assert!(stats.held_bytes_peak <= 256 * 1200, "{}", stats.held_bytes_peak);
    assert_eq!(stats.packets_lost, 2000 - 256);
    let page = fault.brings(9);
    let acks = script.syndromes();
    assert_eq!(acks.last(), Some(&(9 + 255, ACK)), "{acks:?}");
    assert_eq!(script.bench().bytes(page, MTU), vec![255; MTU]);
    script.says(&write(9 + 1999), &[0; MTU]);
    assert_eq!(script.syndromes(), [(9 + 256, GAP)]);
}
