//! The conditions of table 30 (§7.1.3): how a guest causes each, its code, and what becomes of the request.

use std::fmt;
use std::sync::Arc;

use refault_bus::ats::{TranslationAgent, TranslationError};
use refault_bus::dma::{DmaMemory, GuestRam};
use refault_bus::pri::{PageRequest, ResponseCode};
use refault_bus::{Gpa, Iova, Pasid};

use crate::support::descriptors as d;
use crate::support::*;

/// The completion of an ATS translation request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ats {
    NoRights,
    NoRightsRecorded,
    ReadOnly,
    Unsupported,
    Abort,
}

/// What becomes of a page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pri {
    Queued,
    /// Answered Invalid Request, and recorded.
    Refused,
    /// Answered Invalid Request, and not recorded: a departure from table 30.
    RefusedSilently,
}

/// A row of the table of faults in docs/iommu-features.md.
#[derive(Clone, Copy)]
struct Condition {
    code: u8,
    /// FPD keeps its record out.
    qualified: bool,
    /// Untranslated accesses are blocked.
    untranslated: bool,
    /// What happens to a translation request; `None` if the condition does not concern them.
    ats: Option<Ats>,
    /// What happens to a page request; `None` if the condition does not concern them.
    pri: Option<Pri>,
    pasid: Option<Pasid>,
    iova: Iova,
    /// How a guest causes it.
    cause: fn(&Guest),
}

/// A condition of the tables that lead to a PASID entry: every request ends there.
const fn table(code: u8, ats: Ats, cause: fn(&Guest)) -> Condition {
    Condition {
        code,
        qualified: true,
        untranslated: true,
        ats: Some(ats),
        pri: Some(Pri::Refused),
        pasid: Some(PASID),
        iova: VA,
        cause,
    }
}

/// The same, recorded whatever FPD says.
const fn unqualified(code: u8, ats: Ats, cause: fn(&Guest)) -> Condition {
    Condition { qualified: false, ..table(code, ats, cause) }
}

/// A condition of the address: page requests are queued, since the operating system may mend it.
const fn page(code: u8, ats: Ats, cause: fn(&Guest)) -> Condition {
    Condition { pri: Some(Pri::Queued), ..table(code, ats, cause) }
}

impl Condition {
    const fn at(self, pasid: Option<Pasid>, iova: u64) -> Self {
        Self { pasid, iova: Iova(iova), ..self }
    }

    const fn silent_for_page_requests(self) -> Self {
        Self { pri: Some(Pri::RefusedSilently), ..self }
    }

    const fn not_for_page_requests(self) -> Self {
        Self { pri: None, ..self }
    }

    const fn only_for_translation_requests(self) -> Self {
        Self { untranslated: false, pri: None, ..self }
    }

    const fn only_for_page_requests(self) -> Self {
        Self { untranslated: false, ats: None, ..self }
    }

    /// A guest in this condition.
    fn guest(&self) -> Guest {
        let mut guest = Guest::powered_with(|ram| Arc::new(Interposed { ram, before_exchange: race }));
        guest.boot();
        guest.map_user(VA, 0x8000);
        (self.cause)(&guest);
        guest
    }

    /// An untranslated access. All of them write, so that the condition of a page without that right is met.
    fn access(&self, guest: &Guest) -> Result<(), TranslationError> {
        guest.dma(self.pasid, self.iova, true).map(|_| ())
    }

    /// A translation request.
    fn translate(&self, guest: &Guest) -> Ats {
        match guest.iommu.translate(&guest.request(self.pasid, self.iova, true)) {
            Ok(seen) if !seen.read && guest.faults().is_empty() => Ats::NoRights,
            Ok(seen) if !seen.read => Ats::NoRightsRecorded,
            Ok(seen) if !seen.write => Ats::ReadOnly,
            Err(TranslationError::UnsupportedRequest { .. }) => Ats::Unsupported,
            Err(TranslationError::CompleterAbort { .. }) => Ats::Abort,
            other => panic!("{self}: {other:?}"),
        }
    }

    /// A page request.
    fn ask(&self, guest: &Guest) -> Pri {
        let request = PageRequest { pasid: self.pasid, ..page_request(self.iova, true, 7) };
        guest.iommu.page_request(request);
        let codes: Vec<_> = guest.device.responses().iter().map(|response| response.code).collect();
        match (&codes[..], guest.take_page_requests().len(), guest.faults().len()) {
            ([], 1, 0) => Pri::Queued,
            ([ResponseCode::InvalidRequest], 0, 1) => Pri::Refused,
            ([ResponseCode::InvalidRequest], 0, 0) => Pri::RefusedSilently,
            other => panic!("{self}: {other:?}"),
        }
    }

    /// Makes a request that the condition ends.
    fn provoke(&self, guest: &Guest) {
        if self.untranslated {
            self.access(guest).unwrap_err();
        } else if self.ats.is_some() {
            self.translate(guest);
        } else {
            self.ask(guest);
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = CONDITIONS.iter().filter(|row| row.code == self.code);
        let row = rows.take_while(|row| !std::ptr::fn_addr_eq(row.cause, self.cause)).count();
        write!(f, "code {:#x}, its row {row}", self.code)
    }
}

/// A vCPU that changes an entry whose software bit 9 is set, whenever a walk is about to mark it.
fn race(ram: &GuestRam, at: Gpa, seen: u64) {
    if seen & 1 << 9 != 0 {
        ram.store_u64(at, seen ^ 1 << 10).unwrap();
    }
}

fn entry(guest: &Guest, quad: u64, change: fn(u64) -> u64) {
    edit(guest, pasid_entry_at(guest, PASID.get()) + quad * 8, change);
}

fn context_entry(guest: &Guest, quad: u64, change: fn(u64) -> u64) {
    edit(guest, context_entry_at(guest, NIC) + quad * 8, change);
}

fn root_entry(guest: &Guest, change: fn(u64) -> u64) {
    edit(guest, guest.layout.root, change);
}

fn directory_entry(guest: &Guest, change: fn(u64) -> u64) {
    edit(guest, guest.layout.directory, change);
}

/// The top-level entry of [`VA`].
fn top(guest: &Guest, change: fn(u64) -> u64) {
    edit(guest, guest.layout.user_tables + (VA.0 >> 39 & 0x1ff) * 8, change);
}

/// Maps [`VA`] anew, as a leaf of `1 << shift` bytes.
fn leaf(guest: &Guest, gpa: u64, shift: u8, bits: u64) {
    top(guest, |_| 0);
    map(guest, guest.layout.user_tables, VA, gpa, shift, Pte::USER | bits);
}

/// Makes the PASID entry a pass-through one.
fn pass_through(guest: &Guest) {
    entry(guest, 0, |e| e & !(7 << 6) | 4 << 6);
}

fn set_root_register(guest: &Guest, value: u64) {
    guest.write64(reg::RTADDR, value);
    guest.write32(reg::GCMD, reg::TE | reg::QIE | reg::SRTP);
}

/// An address bit that no host has: physical addresses have 52 bits.
const BEYOND: u64 = 1 << 52;

const CONDITIONS: &[Condition] = &[
    unqualified(0x30, Ats::Abort, |g| set_root_register(g, g.layout.root | 0b10 << 10)),
    unqualified(0x30, Ats::Abort, |g| set_root_register(g, g.layout.root | 0b11 << 10)),
    // Legacy mode, which this unit lacks.
    unqualified(0x30, Ats::Abort, |g| set_root_register(g, g.layout.root))
        .at(None, VA.0)
        .not_for_page_requests(),
    unqualified(0x31, Ats::Unsupported, |g| set_root_register(g, g.layout.root)).not_for_page_requests(),
    unqualified(0x32, Ats::Abort, |g| set_root_register(g, g.layout.root)).only_for_page_requests(),
    unqualified(0x38, Ats::Abort, |g| set_root_register(g, HOLE | 1 << 10)),
    unqualified(0x38, Ats::Abort, |g| set_root_register(g, BEYOND | g.layout.root | 1 << 10)),
    unqualified(0x39, Ats::Unsupported, |g| root_entry(g, |e| e & !1)),
    unqualified(0x3a, Ats::Abort, |g| root_entry(g, |e| e | 0x800)),
    unqualified(0x3a, Ats::Abort, |g| root_entry(g, |e| e | BEYOND)),
    unqualified(0x40, Ats::Abort, |g| root_entry(g, |_| HOLE | 1)),
    table(0x41, Ats::Unsupported, |g| context_entry(g, 0, |e| e & !1)),
    table(0x42, Ats::Abort, |g| context_entry(g, 0, |e| e | 1 << 5)),
    table(0x42, Ats::Abort, |g| context_entry(g, 0, |e| e | BEYOND)),
    table(0x42, Ats::Abort, |g| context_entry(g, 1, |_| 1)),
    table(0x42, Ats::Abort, |g| context_entry(g, 3, |_| 1 << 63)),
    // The same bit in two of the quadwords.
    table(0x42, Ats::Abort, |g| (1..=2).for_each(|quad| context_entry(g, quad, |_| 2))),
    table(0x42, Ats::Abort, |g| (2..=3).for_each(|quad| context_entry(g, quad, |_| 2))),
    table(0x43, Ats::Abort, |g| context_entry(g, 0, |e| e & !(1 << 2))),
    table(0x44, Ats::Unsupported, |g| context_entry(g, 0, |e| e & !(1 << 2 | 1 << 4)))
        .only_for_translation_requests(),
    table(0x45, Ats::Unsupported, |g| context_entry(g, 0, |e| e & !(1 << 3))),
    // PDTS 0: 128 directory entries, 8192 PASIDs.
    table(0x46, Ats::Unsupported, |g| context_entry(g, 0, |e| e & !(7 << 9))).at(Pasid::new(0x2000), VA.0),
    table(0x47, Ats::Unsupported, |g| context_entry(g, 0, |e| e & !(1 << 4))).only_for_page_requests(),
    table(0x48, Ats::Unsupported, |_| ()).at(Pasid::new(0), VA.0),
    unqualified(0x50, Ats::Abort, |g| context_entry(g, 0, |e| e & 0xfff | HOLE)),
    table(0x51, Ats::NoRights, |g| directory_entry(g, |_| 0)).silent_for_page_requests(),
    table(0x52, Ats::Abort, |g| directory_entry(g, |e| e | 4)),
    table(0x52, Ats::Abort, |g| directory_entry(g, |e| e | BEYOND)),
    unqualified(0x58, Ats::Abort, |g| directory_entry(g, |_| HOLE | 1)),
    table(0x59, Ats::NoRights, |g| entry(g, 0, |e| e & !1)).silent_for_page_requests(),
    table(0x5a, Ats::Abort, |g| entry(g, 0, |e| e | 1 << 5)),
    table(0x5a, Ats::Abort, |g| entry(g, 0, |e| e | 1 << 10)),
    table(0x5a, Ats::Abort, |g| entry(g, 0, |e| e | 1 << 11)),
    table(0x5a, Ats::Abort, |g| entry(g, 1, |e| e | 1 << 16)),
    // Memory types (ECAP.MTS is clear): CD, EMTE, EMT, PWT, PCD, PAT.
    table(0x5a, Ats::Abort, |g| entry(g, 1, |e| e | 1 << 25)),
    table(0x5a, Ats::Abort, |g| entry(g, 1, |e| e | 1 << 26)),
    table(0x5a, Ats::Abort, |g| entry(g, 1, |e| e | 1 << 29)),
    table(0x5a, Ats::Abort, |g| entry(g, 1, |e| e | 1 << 30)),
    table(0x5a, Ats::Abort, |g| entry(g, 1, |e| e | 1 << 31)),
    table(0x5a, Ats::Abort, |g| entry(g, 1, |e| e | 6 << 32)),
    table(0x5a, Ats::Abort, |g| entry(g, 2, |e| e | 1)),
    table(0x5a, Ats::Abort, |g| entry(g, 2, |e| e | 1 << 7)),
    table(0x5a, Ats::Abort, |g| entry(g, 2, |e| e | BEYOND)),
    table(0x5a, Ats::Abort, |g| entry(g, 7, |_| 1)),
    table(0x5b, Ats::Abort, |g| entry(g, 0, |e| e & !(7 << 6))),
    table(0x5b, Ats::Abort, |g| entry(g, 0, |e| e & !(7 << 6) | 2 << 6)),
    table(0x5b, Ats::Abort, |g| entry(g, 0, |e| e & !(7 << 6) | 3 << 6)),
    table(0x5b, Ats::Abort, |g| entry(g, 2, |e| e | 1 << 2)),
    page(0x70, Ats::NoRights, |g| top(g, |_| HOLE | 7)),
    page(0x71, Ats::NoRights, |g| top(g, |e| e & !1)),
    page(0x72, Ats::NoRights, |g| top(g, |e| e | Pte::LARGE)),
    page(0x72, Ats::NoRights, |g| leaf(g, 0x20_2000, 21, Pte::WRITE)),
    page(0x73, Ats::NoRights, |g| entry(g, 2, |_| HOLE)),
    page(0x80, Ats::NoRights, |_| ()).at(Some(PASID), 1 << 47),
    page(0x81, Ats::NoRights, |g| top(g, |e| e & !Pte::USER)),
    page(0x83, Ats::NoRights, pass_through).at(Some(PASID), BEYOND),
    page(0x85, Ats::ReadOnly, |g| top(g, |e| e & !Pte::WRITE)),
    page(0x87, Ats::Abort, |g| leaf(g, 0xfee0_0000, 12, Pte::WRITE)),
    page(0x87, Ats::Abort, pass_through).at(Some(PASID), 0xfeef_f000),
    page(0x91, Ats::NoRightsRecorded, |g| leaf(g, 0x8000, 12, Pte::WRITE | 1 << 9)),
];

#[test]
fn every_condition_blocks_an_untranslated_access_and_records_its_code() {
    for condition in CONDITIONS {
        let guest = condition.guest();
        let blocked = condition.access(&guest);
        if !condition.untranslated {
            assert!(blocked.is_ok() || condition.code == 0x32, "{condition}");
            continue;
        }
        assert!(matches!(blocked, Err(TranslationError::Blocked { .. })), "{condition}");
        let [fault] = guest.faults()[..] else { panic!("{condition}: one fault is recorded") };
        let (page, pasid) = (condition.iova.0 & !0xfff, condition.pasid.map(Pasid::get));
        let expected = FaultSeen { page, source: NIC.0, reason: condition.code, pasid, ..fault };
        assert_eq!(fault, expected, "{condition}");
        assert_eq!(fault.info >> 60 & 0b111, 0, "{condition}: a write, untranslated");
        assert_eq!(guest.messages(), [FAULT_MSI]);
    }
}

#[test]
fn every_condition_answers_a_translation_request_as_the_specification_has_it() {
    for condition in CONDITIONS {
        let (guest, Some(answer)) = (condition.guest(), condition.ats) else { continue };
        assert_eq!(condition.translate(&guest), answer, "{condition}");
        let recorded: Vec<_> = guest.faults().iter().map(|fault| fault.reason).collect();
        let silent = matches!(answer, Ats::NoRights | Ats::ReadOnly);
        assert_eq!(recorded, if silent { vec![] } else { vec![condition.code] }, "{condition}");
    }
}

#[test]
fn every_condition_of_the_tables_refuses_a_page_request_and_no_condition_of_the_address_does() {
    for condition in CONDITIONS {
        let (guest, Some(outcome)) = (condition.guest(), condition.pri) else { continue };
        assert_eq!(condition.ask(&guest), outcome, "{condition}");
        let recorded: Vec<_> = guest.faults().iter().map(|fault| fault.reason).collect();
        assert_eq!(
            recorded,
            if outcome == Pri::Refused { vec![condition.code] } else { vec![] },
            "{condition}"
        );
    }
}

#[test]
fn fault_processing_disable_keeps_the_qualified_conditions_out_and_no_other() {
    for condition in CONDITIONS {
        let guest = condition.guest();
        context_entry(&guest, 0, |e| e | 2);
        condition.provoke(&guest);
        assert_eq!(guest.faults().is_empty(), condition.qualified, "{condition}");
    }
}

#[test]
fn no_condition_outlives_its_cause() {
    for condition in CONDITIONS {
        let mut guest = condition.guest();
        condition.provoke(&guest);
        // The tables are repaired, and nothing is flushed except by ESRTPS.
        guest.build_tables();
        guest.set_root();
        guest.map_user(VA, 0x8000);
        guest.dma(Some(PASID), VA, false).unwrap();
    }
}

#[test]
fn a_fault_processing_disable_bit_anywhere_on_the_way_keeps_qualified_faults_out() {
    let set_fpd: [fn(&Guest); 3] =
        [|g| context_entry(g, 0, |e| e | 2), |g| directory_entry(g, |e| e | 2), |g| entry(g, 0, |e| e | 2)];
    for set in set_fpd {
        let guest = Guest::booted();
        set(&guest);
        guest.dma(Some(PASID), VA, false).unwrap_err();
        assert!(guest.faults().is_empty());
    }
    // FPD is valid in an entry that is not present too. An unqualified fault is recorded all the same.
    let guest = Guest::booted();
    entry(&guest, 0, |_| 2);
    guest.dma(Some(PASID), VA, false).unwrap_err();
    assert!(guest.faults().is_empty());
    context_entry(&guest, 0, |_| context(HOLE) | 2);
    guest.submit(&[d::context_device(NIC, 0)]);
    guest.dma(Some(PASID), VA, false).unwrap_err();
    assert_eq!(guest.faults()[0].reason, 0x50);
}
