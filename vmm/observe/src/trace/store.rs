//! A compact store of fault records: 72 bytes each, so 100,000 of them take 7 MiB.

use refault_bus::bits::low_u32;
use refault_bus::{AddressSpace, Iova, Pasid, PrgIndex};

use super::record::{FaultOutcome, FaultRecord, StageTimes};

/// Records per allocation. The store never moves records to grow, because that would show in latencies.
const CHUNK: usize = 1024;

/// An append-only list of at most `bound` faults.
#[derive(Clone, Debug)]
pub struct FaultStore {
    chunks: Vec<Vec<Packed>>,
    bound: usize,
    len: usize,
}

impl FaultStore {
    /// An empty store for at most `bound` faults.
    pub fn new(bound: usize) -> Self {
        Self { chunks: Vec::new(), bound, len: 0 }
    }

    /// Appends a fault; returns `false` if the store is full.
    pub fn push(&mut self, record: &FaultRecord) -> bool {
        if self.len >= self.bound {
            return false;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK.min(self.bound - self.len)));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.push(Packed::from(record));
            self.len += 1;
        }
        true
    }

    /// The faults, in the order of their ends.
    pub fn iter(&self) -> impl Iterator<Item = FaultRecord> + '_ {
        self.chunks.iter().flatten().map(Packed::unpack)
    }

    /// Changes each fault in place, in the order of their ends.
    pub fn update(&mut self, mut change: impl FnMut(&mut FaultRecord)) {
        for packed in self.chunks.iter_mut().flatten() {
            let mut record = packed.unpack();
            change(&mut record);
            *packed = Packed::from(&record);
        }
    }

    /// Number of faults.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no faults.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of further faults that fit.
    pub fn free(&self) -> usize {
        self.bound - self.len
    }
}

/// A fault in 72 bytes. Times are relative to the miss.
#[derive(Clone, Copy, Debug)]
struct Packed {
    miss: u64,
    /// Page address; in its low 12 bits the group (0..9), write (9), outcome (10..12).
    page: u64,
    qpn: u32,
    /// PASID or key, depending on `flags`.
    space: u32,
    /// Round, page request, queued, interrupt, taken, handling, handled, response, matched, end.
    distances: [Distance; 10],
    scenario: u16,
    requests: u8,
    flags: u8,
}

const PAGE_BITS: u64 = !0xfff;
const WRITE: u64 = 1 << 9;
const OUTCOME_SHIFT: u32 = 10;
const HAS_PASID: u8 = 1 << 0;
const HAS_KEY: u8 = 1 << 1;
const HAS_GROUP: u8 = 1 << 2;

impl From<&FaultRecord> for Packed {
    fn from(record: &FaultRecord) -> Self {
        let times = &record.times;
        let to = |at: u64| Distance::new(at.saturating_sub(times.miss));
        let seen = |at: Option<u64>| at.map_or(Distance::UNSEEN, to);
        let (space, kind) = match record.space {
            AddressSpace::Function => (0, 0),
            AddressSpace::Process(pasid) => (pasid.get(), HAS_PASID),
            AddressSpace::Region(key) => (key, HAS_KEY),
        };
        let outcome = FaultOutcome::ALL.iter().position(|&o| o == record.outcome).unwrap_or(0) as u64;
        Self {
            miss: times.miss,
            page: (record.iova.0 & PAGE_BITS)
                | record.group.map_or(0, |group| u64::from(group.get()))
                | if record.write { WRITE } else { 0 }
                | outcome << OUTCOME_SHIFT,
            qpn: record.qpn,
            space,
            distances: [
                to(times.round),
                seen(times.page_request),
                seen(times.queued),
                seen(times.interrupt),
                seen(times.taken),
                seen(times.handling),
                seen(times.handled),
                seen(times.response),
                seen(times.matched),
                to(times.end),
            ],
            scenario: record.scenario,
            requests: record.requests.min(255) as u8,
            flags: kind | if record.group.is_some() { HAS_GROUP } else { 0 },
        }
    }
}

impl Packed {
    fn unpack(&self) -> FaultRecord {
        let [round, page_request, queued, interrupt, taken, handling, handled, response, matched, end] =
            self.distances.map(|distance| distance.ns().map(|ns| self.miss + ns));
        FaultRecord {
            scenario: self.scenario,
            qpn: self.qpn,
            space: self.space(),
            iova: Iova(self.page & PAGE_BITS),
            write: self.page & WRITE != 0,
            group: (self.flags & HAS_GROUP != 0).then_some(PrgIndex::truncated(self.page)),
            requests: u32::from(self.requests),
            outcome: FaultOutcome::ALL[(self.page >> OUTCOME_SHIFT & 3) as usize],
            times: StageTimes {
                miss: self.miss,
                round: round.unwrap_or(self.miss),
                page_request,
                queued,
                interrupt,
                taken,
                handling,
                handled,
                response,
                matched,
                end: end.unwrap_or(self.miss),
            },
        }
    }

    fn space(&self) -> AddressSpace {
        match self.flags & (HAS_PASID | HAS_KEY) {
            HAS_PASID => AddressSpace::Process(Pasid::truncated(u64::from(self.space))),
            HAS_KEY => AddressSpace::Region(self.space),
            _ => AddressSpace::Function,
        }
    }
}

/// A time span in 32 bits: exact up to 2 seconds, in steps of 1024 ns up to 36 minutes, then saturated.
#[derive(Clone, Copy, Debug)]
struct Distance(u32);

impl Distance {
    const UNSEEN: Self = Self(u32::MAX);
    const COARSE: u32 = 1 << 31;

    fn new(ns: u64) -> Self {
        if ns < u64::from(Self::COARSE) {
            return Self(low_u32(ns));
        }
        let coarse = (ns >> 10).min(u64::from(Self::COARSE) - 2);
        Self(low_u32(coarse) | Self::COARSE)
    }

    fn ns(self) -> Option<u64> {
        match self {
            Self(u32::MAX) => None,
            Self(exact) if exact < Self::COARSE => Some(u64::from(exact)),
            Self(coarse) => Some(u64::from(coarse & !Self::COARSE) << 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = FaultRecord> {
        let space = prop_oneof![
            Just(AddressSpace::Function),
            (0u64..1 << 20).prop_map(|pasid| AddressSpace::Process(Pasid::truncated(pasid))),
            any::<u32>().prop_map(AddressSpace::Region),
        ];
        let ids = (0u16..40, any::<u32>(), space, 0u64..1 << 52, any::<bool>());
        let fate = (proptest::option::of(0u64..512), 0u32..256, 0usize..4, 0u64..1 << 60, 0u64..1 << 30);
        let stages = proptest::array::uniform8(proptest::option::of(0u64..1 << 31));
        (ids, fate, stages, 0u64..1 << 31).prop_map(
            |((scenario, qpn, space, page, write), (group, requests, outcome, miss, round), stages, end)| {
                let at = |stage: usize| stages[stage].map(|ns| ns + miss);
                FaultRecord {
                    scenario,
                    qpn,
                    space,
                    iova: Iova(page << 12),
                    write,
                    group: group.map(PrgIndex::truncated),
                    requests,
                    outcome: FaultOutcome::ALL[outcome],
                    times: StageTimes {
                        miss,
                        round: miss + round,
                        page_request: at(0),
                        queued: at(1),
                        interrupt: at(2),
                        taken: at(5),
                        handling: at(6),
                        handled: at(7),
                        response: at(3),
                        matched: at(4),
                        end: miss + end,
                    },
                }
            },
        )
    }

    proptest! {
        #[test]
        fn packing_is_lossless(record in record()) {
            prop_assert_eq!(Packed::from(&record).unpack(), record);
        }
    }

    #[test]
    fn a_packed_fault_has_72_bytes() {
        assert_eq!(size_of::<Packed>(), 72);
    }

    #[test]
    fn long_distances_lose_only_low_bits() {
        for ns in [1 << 31, 5_000_000_123, 2_000_000_000_000] {
            let back = Distance::new(ns).ns().unwrap();
            assert!(back <= ns && ns - back < 1024);
        }
        assert_eq!(Distance::new(u64::MAX).ns(), Some(((1 << 31) - 2) << 10));
    }

    #[test]
    fn a_full_store_rejects_faults() {
        let record = Packed {
            miss: 1,
            page: 0,
            qpn: 7,
            space: 0,
            distances: [Distance(0); 10],
            scenario: 0,
            requests: 1,
            flags: 0,
        }
        .unpack();
        let mut store = FaultStore::new(CHUNK + 1);
        assert_eq!((0..CHUNK + 9).filter(|_| store.push(&record)).count(), CHUNK + 1);
        assert_eq!((store.len(), store.free(), store.iter().count()), (CHUNK + 1, 0, CHUNK + 1));
        store.update(|record| record.times.taken = Some(1));
        assert!(store.iter().all(|record| record.times.taken == Some(1)));
    }
}
