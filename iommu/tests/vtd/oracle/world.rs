//! Random tables, most of them nearly right, and random requests to them.

use std::collections::BTreeMap;

use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;

use crate::oracle::walker::Registers;
use crate::support::*;

/// Where the tables are, in memory that the guest does not use otherwise.
const ROOT: u64 = 0x40_0000;
const CONTEXTS: [u64; 2] = [0x40_1000, 0x40_2000];
const PASIDS: [u64; 2] = [0x40_3000, 0x40_4000];
/// One table for each level from the top, and second ones for levels 3 to 1.
const TABLES: [u64; 7] = [0x40_5000, 0x40_6000, 0x40_7000, 0x40_8000, 0x40_9000, 0x40_a000, 0x40_b000];
/// A directory of 2^14 entries.
const DIRECTORY: u64 = 0x42_0000;

/// Requesters with a context entry, and its DTE, PASIDE and PRE: both halves of a bus, and another bus.
const REQUESTERS: [(u16, u64); 3] = [(NIC.0, 0b1_1100), (0x00f8, 0b0_1100), (0x0120, 0b0_1000)];
/// PASIDs with an entry: the first two with first-stage tables, then pass-through ones, and one in the last table.
const BOUND: [u32; 5] = [0, 1, 2, 65, 0xf_ffff];

/// The random numbers of one case (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(super) fn below(&mut self, count: u64) -> u64 {
        self.roll() % count
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// How a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Untranslated,
    Translation,
    PageRequest,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) requester: u16,
    pub(super) pasid: Option<u32>,
    pub(super) iova: u64,
    pub(super) write: bool,
}

impl Request {
    pub(super) fn random(dice: &mut Dice) -> Self {
        let pasid = match dice.below(8) {
            0 => None,
            1..=3 => Some(1),
            4 => Some(dice.of(&[3, 66, 0x2000])),
            _ => Some(dice.of(&BOUND)),
        };
        let kind = dice.of(&[Kind::Untranslated, Kind::Untranslated, Kind::Translation, Kind::PageRequest]);
        let requester = if dice.one_in(4) { dice.of(&REQUESTERS).0 } else { NIC.0 };
        let requester = if dice.one_in(50) { requester ^ 1 << dice.below(16) } else { requester };
        let mut iova = address(dice);
        if kind == Kind::PageRequest {
            iova &= !0xfff;
        }
        Self { kind, requester, pasid, iova, write: dice.one_in(2) }
    }
}

/// An address with small indices, so that it uses entries that exist, or one of another kind.
fn address(dice: &mut Dice) -> u64 {
    match dice.below(16) {
        0 => 0xfee0_0000 + dice.below(0x10_0000),
        1 => 0xc000_0000 + dice.below(0x4000_0000),
        2 => dice.roll() >> dice.below(64),
        3 => 1 << 52 | dice.below(1 << 20),
        _ => {
            let [a, b, c, d] = [0; 4].map(|_: u64| dice.below(3));
            let low = a << 39 | b << 30 | c << 21 | d << 12 | dice.below(0x1000);
            if dice.one_in(4) { low | 0xffff_8000 << 32 } else { low }
        }
    }
}

/// The tables of a case, as they are in the guest's memory.
pub(super) struct Memory<'a> {
    guest: &'a Guest,
    words: BTreeMap<u64, u64>,
}

impl<'a> Memory<'a> {
    fn new(guest: &'a Guest) -> Self {
        Self { guest, words: BTreeMap::new() }
    }

    /// The quadword at `at`; `None` outside memory.
    pub(super) fn load(&self, at: u64) -> Option<u64> {
        self.words.get(&at).copied().or_else(|| self.guest.ram.load_u64(Gpa(at)).ok())
    }

    /// Sets bits that a walk sets.
    pub(super) fn set(&mut self, at: u64, bits: u64) {
        let value = self.load(at).unwrap() | bits;
        self.words.insert(at, value);
    }

    /// The first quadword whose value in the guest's memory is another.
    pub(super) fn difference(&self) -> Option<(u64, u64, u64)> {
        let pairs = self.words.iter().map(|(&at, &value)| (at, value, self.guest.load(at)));
        pairs.into_iter().find(|(_, expected, seen)| expected != seen)
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        self.words.keys().for_each(|&at| self.guest.store(at, 0));
    }
}

pub(super) struct World<'a> {
    pub(super) registers: Registers,
    pub(super) memory: Memory<'a>,
    /// No two structures share memory: what is cached of one stays true while bits are set in another.
    pub(super) is_apart: bool,
}

impl<'a> World<'a> {
    /// Tables that are right but for at most three mistakes, in the guest's memory.
    pub(super) fn random(guest: &'a Guest, dice: &mut Dice) -> Self {
        let registers = Registers { root: ROOT | 1 << 10, enabled: true };
        let mut world = Self { registers, memory: Memory::new(guest), is_apart: true };
        world.build(dice);
        for _ in 0..dice.of(&[0, 1, 1, 1, 2, 3]) {
            world.spoil(dice);
        }
        world.memory.words.iter().for_each(|(&at, &value)| guest.store(at, value));
        world
    }

    fn build(&mut self, dice: &mut Dice) {
        let words = &mut self.memory.words;
        for (requester, allows) in REQUESTERS {
            let (bus, devfn) = (u64::from(requester >> 8), u64::from(requester & 0xff));
            let table = CONTEXTS[(devfn / 128) as usize];
            words.insert(ROOT + bus * 16 + devfn / 128 * 8, table | 1);
            words.insert(table + devfn % 128 * 32, DIRECTORY | 7 << 9 | allows | fpd(dice) | 1);
        }
        for (index, pasid) in BOUND.into_iter().enumerate() {
            let (index, pasid) = (index as u64, u64::from(pasid));
            let table = PASIDS[usize::from(pasid >= 64)];
            words.insert(DIRECTORY + pasid / 64 * 8, table | fpd(dice) | 1);
            let at = table + pasid % 64 * 64;
            let pgtt = if index < 2 { 1 } else { 4 };
            words.insert(at, pgtt << 6 | dice.below(8) << 2 | fpd(dice) | 1);
            words.insert(at + 8, dice.below(2) << 24 | 0x80_0000 | (index << 8) | 1);
            words.insert(at + 16, if index < 2 { TABLES[0] } else { 0 });
        }
        let [top, rest @ ..] = TABLES;
        for (index, table) in [(0, rest[0]), (1, rest[3]), (2, rest[0]), (256, rest[0]), (257, rest[3])] {
            words.insert(top + index * 8, table | flags(dice));
        }
        for (level, next) in [(0, Some(1)), (1, Some(2)), (2, None), (3, Some(4)), (4, Some(5)), (5, None)] {
            let shift = [30u8, 21, 12][level % 3];
            for index in 0..3 {
                let value = match next {
                    Some(next) if index != 1 => rest[next],
                    _ => leaf(dice, shift) | if next.is_some() { 0x80 } else { 0 },
                };
                words.insert(rest[level] + index * 8, value | flags(dice));
            }
        }
    }

    /// One mistake, somewhere.
    fn spoil(&mut self, dice: &mut Dice) {
        if dice.one_in(8) {
            self.registers.root = match dice.below(3) {
                0 => dice.of(&[HOLE, ROOT | 1 << 52]) | 1 << 10,
                _ => ROOT | dice.below(4) << 10,
            };
            return;
        }
        self.registers.enabled &= !dice.one_in(30);
        // A structure first, so that the small ones are not rare.
        let structure = dice.of(&[
            ROOT,
            CONTEXTS[0],
            DIRECTORY,
            PASIDS[0],
            PASIDS[0],
            PASIDS[1],
            TABLES[0],
            TABLES[1],
            TABLES[2],
        ]);
        let size = if structure == DIRECTORY { 0x2_0000 } else { 0x1000 };
        let known: Vec<u64> =
            self.memory.words.range(structure..structure + size).map(|(&at, _)| at).collect();
        let mut at = dice.of(&known);
        // Also words that are zero: the rest of a context or PASID entry.
        if dice.one_in(4) {
            at = at & !0x1f | dice.below(8) << 3;
        }
        let old = self.memory.load(at).unwrap();
        let new = match dice.below(8) {
            0 => old & 0xfff | HOLE,
            1 => old | 1 << 52,
            2 => 0,
            3 => {
                self.is_apart = false;
                old & 0xfff | dice.of(&TABLES)
            }
            4 => old ^ 1 << dice.below(64),
            _ => old ^ 1 << dice.below(12),
        };
        self.is_apart &= (old ^ new) & 0x000f_ffff_ffff_f000 == 0 || new >> 12 == HOLE >> 12 || new == 0;
        self.memory.words.insert(at, new);
    }
}

/// FPD, now and then.
fn fpd(dice: &mut Dice) -> u64 {
    u64::from(dice.one_in(12)) << 1
}

/// Low bits of a paging entry: mostly present, writable and a user's, the rest as it comes.
fn flags(dice: &mut Dice) -> u64 {
    let (p, w, u) = (!dice.one_in(20), !dice.one_in(6), !dice.one_in(12));
    let ignored = dice.roll() & (0xfff << 52 | 0xf78);
    ignored | u64::from(p) | u64::from(w) << 1 | u64::from(u) << 2
}

/// The address of a page: anywhere, around the interrupt range, or misaligned.
fn leaf(dice: &mut Dice, shift: u8) -> u64 {
    let around = 0xfee0_0000 + dice.below(4) * 0x8_0000;
    let address = match dice.below(6) {
        0 | 1 => around >> shift << shift,
        2 => dice.roll() & 0x000f_ffff_ffff_f000,
        _ => dice.roll() >> shift << shift & 0x000f_ffff_ffff_f000,
    };
    let pat = if shift > 12 { dice.below(2) << 12 } else { 0 };
    address | pat
}
