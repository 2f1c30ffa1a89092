//! The unit against a second walker, over random tables and requests. `REFAULT_ORACLE=1000000` sets how many requests; they
//! are the same in every run.

mod walker;
mod world;

use std::collections::BTreeMap;

use refault_bus::ats::{RequestKind, Translation, TranslationAgent, TranslationError, TranslationRequest};
use refault_bus::pri::{PageRequest, ResponseCode};
use refault_bus::{Bdf, Iova, Pasid};

use crate::support::*;
use walker::{Answer, INTERRUPTS, Registers, Verdict, verdict};
use world::{Dice, Kind, Request, World};

/// Requests without REFAULT_ORACLE: so many that each condition occurs several times.
const REQUESTS: u64 = 100_000;
const REQUESTS_OF_A_WORLD: u64 = 8;

/// The conditions that tables alone can cause: all but 0x91, which takes a race.
const CODES: [u8; 31] = [
    0x30, 0x31, 0x32, 0x38, 0x39, 0x3a, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x50, 0x51,
    0x52, 0x58, 0x59, 0x5a, 0x5b, 0x70, 0x71, 0x72, 0x73, 0x80, 0x81, 0x83, 0x85, 0x87,
];

#[test]
fn the_unit_agrees_with_a_second_walker() {
    let requests = std::env::var("REFAULT_ORACLE").map_or(REQUESTS, |count| count.parse().unwrap());
    let guest = guest();
    let mut seen = BTreeMap::<u8, u64>::new();
    for seed in 0..requests.div_ceil(REQUESTS_OF_A_WORLD) {
        let mut dice = Dice(seed);
        let mut world = World::random(&guest, &mut dice);
        load_registers(&guest, world.registers);
        let mut last = None;
        for _ in 0..REQUESTS_OF_A_WORLD {
            let request = Request::random(&mut dice);
            // Spaces may have one tag in wrong tables, and cached translations in common.
            if !world.is_apart || last != Some((request.requester, request.pasid)) {
                load_registers(&guest, world.registers);
            }
            last = Some((request.requester, request.pasid));
            let expected = verdict(world.registers, &mut world.memory, &request);
            *seen.entry(expected.code).or_default() += 1;
            let outcome = observe(&guest, &request, expected);
            assert_eq!(
                outcome,
                Ok(()),
                "seed {seed}: {request:x?}, {:x?}, expected {expected:x?}",
                world.registers
            );
            if let Some((at, expected, found)) = world.memory.difference() {
                panic!("seed {seed}: {request:x?} left {found:#x} at {at:#x}, not {expected:#x}");
            }
        }
    }
    let seen_as_text: Vec<_> = seen.iter().map(|(code, count)| format!("{code:02x}: {count}")).collect();
    println!("{requests} requests; by code: {}", seen_as_text.join(", "));
    let missing: Vec<_> = CODES.iter().filter(|&code| !seen.contains_key(code)).collect();
    assert!(missing.is_empty() || requests < REQUESTS, "conditions that never occurred: {missing:x?}");
}

/// A guest with the registers for faults and page requests set up, and no tables.
fn guest() -> Guest {
    let mut guest = Guest::powered();
    guest.layout.requests = 0x30_0000;
    guest.enable_page_requests();
    guest.program_event(reg::FECTL, FAULT_MSI);
    guest
}

/// Loads RTADDR, which empties all caches, and TE.
fn load_registers(guest: &Guest, registers: Registers) {
    guest.write64(reg::RTADDR, registers.root);
    let enable = if registers.enabled { reg::TE } else { 0 };
    guest.write32(reg::GCMD, reg::SRTP | enable);
}

/// Makes the request, and compares what the unit does with what is expected.
fn observe(guest: &Guest, request: &Request, expected: Verdict) -> Result<(), String> {
    let (requester, pasid) = (Bdf(request.requester), request.pasid.and_then(Pasid::new));
    let (iova, write) = (Iova(request.iova), request.write);
    let answer = if request.kind == Kind::PageRequest {
        guest.iommu.page_request(PageRequest { requester, pasid, ..page_request(iova, write, 1) });
        ask(guest, requester)?
    } else {
        let kind = match request.kind {
            Kind::Untranslated => RequestKind::Untranslated,
            _ => RequestKind::Translation,
        };
        match guest.iommu.translate(&TranslationRequest { requester, pasid, iova, write, kind }) {
            Ok(seen) => granted(request, seen, expected.answer)?,
            Err(TranslationError::UnsupportedRequest { .. }) => Answer::Unsupported,
            Err(TranslationError::CompleterAbort { .. }) => Answer::Abort,
            Err(TranslationError::Blocked { .. }) => Answer::Blocked,
        }
    };
    if answer != expected.answer {
        return Err(format!("the unit answers {answer:x?}"));
    }
    let faults = guest.faults();
    let recorded: Vec<_> = faults
        .iter()
        .map(|fault| (fault.reason, fault.page, fault.source, fault.pasid, kind_bits(fault)))
        .collect();
    let page = request.iova & !0xfff;
    let wanted: Vec<_> = expected
        .recorded
        .iter()
        .map(|&code| (code, page, request.requester, request.pasid, expected_bits(request)))
        .collect();
    if !faults.is_empty() {
        guest.service_faults();
    }
    if recorded == wanted { Ok(()) } else { Err(format!("the unit records {recorded:x?}")) }
}

/// The outcome of a page request. Only the attached device hears of a refusal.
fn ask(guest: &Guest, requester: Bdf) -> Result<Answer, String> {
    let codes: Vec<_> = guest.device.responses().iter().map(|response| response.code).collect();
    match (guest.take_page_requests().len(), &codes[..]) {
        (1, []) => Ok(Answer::Queued),
        (0, [ResponseCode::InvalidRequest]) if requester == NIC => Ok(Answer::Refused),
        (0, []) if requester != NIC => Ok(Answer::Refused),
        other => Err(format!("queued and answered: {other:?}")),
    }
}

/// The translation as an answer. Of a page around the interrupt range, and of all memory, any part will do that contains
/// the address and lies beside the range.
fn granted(request: &Request, seen: Translation, expected: Answer) -> Result<Answer, String> {
    if !seen.read {
        return Ok(Answer::NoRights);
    }
    let (first, size) = (seen.gpa.0, 1u64 << seen.page_shift);
    let overlaps = first <= *INTERRUPTS.end() && first + (size - 1) >= *INTERRUPTS.start();
    let (gpa, mut shift) = (seen.gpa_of(Iova(request.iova)).0, seen.page_shift);
    if overlaps && !INTERRUPTS.contains(&gpa) {
        return Err(format!("{seen:?} leads into the interrupt range"));
    }
    let mut write = seen.write;
    if let Answer::Granted { gpa, shift: page, write: wanted } = expected {
        let (first, last) = (gpa >> page << page, gpa | ((1 << page) - 1));
        if shift < page && first <= *INTERRUPTS.end() && last >= *INTERRUPTS.start() {
            shift = page;
        }
        // An untranslated access is granted or blocked; what it could do besides does not matter.
        if request.kind == Kind::Untranslated && (!request.write || write) {
            write = wanted;
        }
    }
    Ok(Answer::Granted { gpa, shift, write })
}

/// T1, AT and T2 of a record.
fn kind_bits(fault: &FaultSeen) -> (u64, u64, u64) {
    (fault.info >> 62 & 1, fault.info >> 60 & 3, fault.info >> 28 & 1)
}

fn expected_bits(request: &Request) -> (u64, u64, u64) {
    let read = u64::from(!request.write);
    match request.kind {
        Kind::Untranslated => (read, 0, 0),
        Kind::Translation => (read, 1, 0),
        Kind::PageRequest => (0, 0, 1),
    }
}
