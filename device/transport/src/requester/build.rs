//! The headers of a request's packets.

use std::ops::Range;

use refault_roce::{AtomicEth, Opcode, Operation, Packet, Place, Reth, Service};

use super::InFlight;
use crate::config::RequesterConfig;
use crate::request::{Request, Verb};

/// Packet `at` of a request, and its payload. `wants_ack` asks for an acknowledgement in the middle of a message.
pub(super) fn packet(
    config: &RequesterConfig,
    in_flight: &InFlight,
    at: u32,
    wants_ack: bool,
) -> (Packet, Range<u32>) {
    let &InFlight { request, first, packets, .. } = in_flight;
    let begin = at * config.mtu.bytes();
    let left = request.length.saturating_sub(begin);
    let is_message = !request.verb.has_response();
    let place = if is_message { Place::of(at, packets) } else { Place::Only };
    let mut packet = Packet::new(opcode(&request, place), config.dest_qpn, first.after(at));
    packet.ack_request = place.ends() || wants_ack;
    packet.solicited = request.solicited && place.ends();
    let reth = |address: u64, key, begin: u32, length| Reth {
        address: address.wrapping_add(u64::from(begin)),
        key,
        length,
    };
    match request.verb {
        Verb::Send { immediate } if place.ends() => packet.immediate = immediate.unwrap_or_default(),
        Verb::SendInvalidate { key } if place.ends() => packet.invalidate = key,
        Verb::Send { .. } | Verb::SendInvalidate { .. } => {}
        Verb::Write { address, key, immediate } => {
            if place.begins() {
                packet.reth = reth(address, key, 0, request.length);
            }
            if place.ends() {
                packet.immediate = immediate.unwrap_or_default();
            }
        }
        Verb::Read { address, key } => packet.reth = reth(address, key, begin, left),
        Verb::Flush { address, key, flush } => {
            packet.reth = reth(address, key, 0, request.length);
            packet.feth = flush;
        }
        Verb::AtomicWrite { address, key } => packet.reth = reth(address, key, 0, request.length),
        Verb::CompareSwap { address, key, compare, swap } => {
            packet.atomic = AtomicEth { address, key, swap_or_add: swap, compare };
        }
        Verb::FetchAdd { address, key, add } => {
            packet.atomic = AtomicEth { address, key, swap_or_add: add, compare: 0 };
        }
    }
    let bytes = match request.verb {
        Verb::Send { .. } | Verb::SendInvalidate { .. } | Verb::Write { .. } => left.min(config.mtu.bytes()),
        Verb::AtomicWrite { .. } => left,
        _ => 0,
    };
    (packet, begin..begin + bytes)
}

fn opcode(request: &Request, place: Place) -> Opcode {
    let has_immediate = match request.verb {
        Verb::Send { immediate } | Verb::Write { immediate, .. } => immediate.is_some() && place.ends(),
        _ => false,
    };
    let operation = match request.verb.operation() {
        // Only the end of the message says so.
        Operation::SendInvalidate if !place.ends() => Operation::Send,
        operation => operation,
    };
    Opcode::new(Service::Rc, operation, place, has_immediate).unwrap_or(Opcode::CONGESTION)
}
