//! A second walker, written from the specification's sections as `docs/iommu-features.md` cites them. It shares no code
//! with the unit, has no cache and takes one quadword after the other.

use std::ops::RangeInclusive;

use crate::oracle::world::{Kind, Memory, Request};

/// The interrupt range (§3.14).
pub(super) const INTERRUPTS: RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;

/// Address bits 51:12 of an entry; the host address width is 52.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// RTADDR as it was latched, and TES.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Registers {
    pub(super) root: u64,
    pub(super) enabled: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The address becomes `gpa`, as part of a naturally aligned page of `1 << shift` bytes.
    Granted {
        gpa: u64,
        shift: u8,
        write: bool,
    },
    NoRights,
    Unsupported,
    Abort,
    Blocked,
    /// A page request is in the queue.
    Queued,
    /// A page request is answered Invalid Request.
    Refused,
}

/// The answer, and the code that is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) answer: Answer,
    pub(super) recorded: Option<u8>,
    /// The code of the condition, recorded or not; zero if there is none.
    pub(super) code: u8,
}

/// Why a walk ends early.
enum End {
    /// Translation is off.
    Off,
    /// A condition of table 30, by its code.
    Condition(u8),
}

impl From<u8> for End {
    fn from(code: u8) -> Self {
        Self::Condition(code)
    }
}

/// The verdict on a request. Accessed and dirty bits are set in `memory`.
pub(super) fn verdict(registers: Registers, memory: &mut Memory<'_>, request: &Request) -> Verdict {
    let mut fpd = false;
    let code = match walk(registers, memory, request, &mut fpd) {
        Ok(answer) => return Verdict { answer, recorded: None, code: 0 },
        Err(End::Off) => {
            let refused = request.kind == Kind::PageRequest;
            let answer = if refused { Answer::Refused } else { Answer::Unsupported };
            return Verdict { answer, recorded: None, code: 0 };
        }
        Err(End::Condition(code)) => code,
    };
    let (answer, silent) = match request.kind {
        Kind::Untranslated => (Answer::Blocked, false),
        Kind::PageRequest => (Answer::Refused, matches!(code, 0x51 | 0x59)),
        Kind::Translation => (completion(code), completion(code) == Answer::NoRights),
    };
    let kept_out = silent || fpd && is_qualified(code);
    let recorded = (!kept_out).then_some(code);
    Verdict { answer, recorded, code }
}

/// Table 30, column "qualified".
fn is_qualified(code: u8) -> bool {
    !matches!(code, 0x30..=0x40 | 0x50 | 0x58)
}

/// Table 30, completion of a translation request.
fn completion(code: u8) -> Answer {
    match code {
        0x31 | 0x39 | 0x41 | 0x44..=0x48 => Answer::Unsupported,
        0x51 | 0x59 | 0x70..=0x73 | 0x80..=0x85 => Answer::NoRights,
        _ => Answer::Abort,
    }
}

fn walk(
    registers: Registers,
    memory: &mut Memory<'_>,
    request: &Request,
    fpd: &mut bool,
) -> Result<Answer, End> {
    let plain = request.kind == Kind::Untranslated && request.pasid.is_none();
    let identity = Answer::Granted { gpa: request.iova, shift: 30, write: true };
    if !registers.enabled {
        return if plain { Ok(identity) } else { Err(End::Off) };
    }
    // §3.14: an interrupt request, which only a request without PASID can be.
    if request.pasid.is_none() && request.kind != Kind::PageRequest && INTERRUPTS.contains(&request.iova) {
        return Ok(if plain { identity } else { Answer::NoRights });
    }
    let context = context_entry(registers, memory, request, fpd)?;
    let (pgtt, table) = pasid_entry(memory, request, context, fpd)?;
    match (request.kind, pgtt) {
        (Kind::PageRequest, _) => Ok(Answer::Queued),
        (_, 4) => pass_through(request),
        _ => first_stage(memory, request, table),
    }
}

/// The first quadword of the context entry (§9.1 to §9.4).
fn context_entry(
    registers: Registers,
    memory: &Memory<'_>,
    request: &Request,
    fpd: &mut bool,
) -> Result<u64, End> {
    match registers.root >> 10 & 3 {
        1 => {}
        0 if request.kind == Kind::PageRequest => return Err(0x32.into()),
        0 if request.pasid.is_some() => return Err(0x31.into()),
        _ => return Err(0x30.into()),
    }
    let (bus, devfn) = (u64::from(request.requester >> 8), u64::from(request.requester & 0xff));
    // Sixteen bytes for each bus, half of them for devices from 16 on.
    let root = memory.load((registers.root & !0xfff) + bus * 16 + devfn / 128 * 8).ok_or(0x38)?;
    if root & 1 == 0 {
        return Err(0x39.into());
    }
    if root & !(ADDRESS | 1) != 0 {
        return Err(0x3a.into());
    }
    let at = (root & ADDRESS) + devfn % 128 * 32;
    let entry = memory.load(at).ok_or(0x40)?;
    *fpd |= entry & 2 != 0;
    if entry & 1 == 0 {
        return Err(0x41.into());
    }
    // PDTS 11:9, PRE 4, PASIDE 3, DTE 2, FPD 1, P 0.
    let reserved = entry & !(ADDRESS | 0xe1f);
    if reserved != 0 || [8, 16, 24].iter().any(|offset| memory.load(at + offset) != Some(0)) {
        return Err(0x42.into());
    }
    let (dte, pre) = (entry & 4 != 0, entry & 16 != 0);
    match request.kind {
        _ if pre && !dte => Err(0x43.into()),
        Kind::Translation if !dte => Err(0x44.into()),
        Kind::PageRequest if !pre => Err(0x47.into()),
        _ => Ok(entry),
    }
}

/// PGTT and FSPTPTR of the PASID entry (§9.5, §9.6).
fn pasid_entry(
    memory: &Memory<'_>,
    request: &Request,
    context: u64,
    fpd: &mut bool,
) -> Result<(u64, u64), End> {
    let pasid = match request.pasid {
        Some(_) if context & 8 == 0 => return Err(0x45.into()),
        Some(0) => return Err(0x48.into()),
        pasid => u64::from(pasid.unwrap_or(0)),
    };
    let directory_entries = 128u64 << (context >> 9 & 7);
    if pasid / 64 >= directory_entries {
        return Err(0x46.into());
    }
    let directory = memory.load((context & ADDRESS) + pasid / 64 * 8).ok_or(0x50)?;
    *fpd |= directory & 2 != 0;
    if directory & 1 == 0 {
        return Err(0x51.into());
    }
    if directory & !(ADDRESS | 3) != 0 {
        return Err(0x52.into());
    }
    let at = (directory & ADDRESS) + pasid % 64 * 64;
    let mut quads = [0; 8];
    for (index, quad) in quads.iter_mut().enumerate() {
        *quad = memory.load(at + index as u64 * 8).ok_or(0x58)?;
    }
    *fpd |= quads[0] & 2 != 0;
    if quads[0] & 1 == 0 {
        return Err(0x59.into());
    }
    // Bits 5 and 11:10; all but DID, PWSNP and PGSNP; SRE, ERE, EAFE and 11:8, and the address beyond bit 51; the rest.
    let reserved = quads[0] & 0xc20 | quads[1] & !0x0180_ffff | quads[2] & (0xf83 | !(ADDRESS | 0xfff));
    if reserved != 0 || quads[3..].iter().any(|&quad| quad != 0) {
        return Err(0x5a.into());
    }
    let (pgtt, levels) = (quads[0] >> 6 & 7, quads[2] >> 2 & 3);
    match (pgtt, levels) {
        (1, 0) | (4, _) => Ok((pgtt, quads[2] & ADDRESS)),
        _ => Err(0x5b.into()),
    }
}

/// §3.9.
fn pass_through(request: &Request) -> Result<Answer, End> {
    if request.iova >= 1 << 52 {
        return Err(0x83.into());
    }
    if INTERRUPTS.contains(&request.iova) {
        return Err(0x87.into());
    }
    Ok(Answer::Granted { gpa: request.iova, shift: 30, write: request.write })
}

/// §3.6, for 4 levels and a user's access to data; entries as in §9.7.
fn first_stage(memory: &mut Memory<'_>, request: &Request, mut table: u64) -> Result<Answer, End> {
    let iova = request.iova;
    if iova.wrapping_add(1 << 47) >> 48 != 0 {
        return Err(0x80.into());
    }
    let (mut writable, mut passed) = (true, Vec::new());
    for shift in [39u8, 30, 21, 12] {
        let at = table + (iova >> shift) % 512 * 8;
        let entry = memory.load(at).ok_or(if shift == 39 { 0x73 } else { 0x70 })?;
        if entry & 1 == 0 {
            return Err(0x71.into());
        }
        let (large, address) = (entry & 0x80 != 0, entry & ADDRESS);
        let reserved = match shift {
            39 => large,
            // Below a large page, all but the memory type in bit 12.
            30 | 21 => large && (address % (1 << shift)) & !0x1000 != 0,
            _ => false,
        };
        if reserved {
            return Err(0x72.into());
        }
        if entry & 4 == 0 {
            return Err(0x81.into());
        }
        writable &= entry & 2 != 0;
        passed.push(at);
        if large || shift == 12 {
            let gpa = (address >> shift << shift) + iova % (1 << shift);
            if request.kind == Kind::Untranslated && request.write && !writable {
                return Err(0x85.into());
            }
            if INTERRUPTS.contains(&gpa) {
                return Err(0x87.into());
            }
            let write = request.write && writable;
            passed.iter().for_each(|&at| memory.set(at, 0x20));
            memory.set(at, if write { 0x40 } else { 0 });
            return Ok(Answer::Granted { gpa, shift, write });
        }
        table = address;
    }
    unreachable!("the last level has a leaf")
}
