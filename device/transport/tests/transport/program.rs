//! Random programs: requests of all kinds, and what they must do if each is executed once and in order.

use refault_roce::{Feth, Mtu};
use refault_transport::{Request, Verb};

use crate::Random;

/// Bytes of the responder's memory: what is only read, what is written, and what atomics work on.
pub(crate) const READ_ONLY: u32 = 64 << 10;
pub(crate) const WRITTEN: u32 = 64 << 10;
pub(crate) const WORDS: u32 = 16;
pub(crate) const MEMORY: usize = (READ_ONLY + WRITTEN + WORDS * 8) as usize;
pub(crate) const KEY: u32 = 0x1234;
const ATOMICS: u64 = (READ_ONLY + WRITTEN) as u64;

/// A request and the requester's memory for it.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) request: Request,
    pub(crate) local: Vec<u8>,
}

/// What a receive request got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    pub(crate) immediate: Option<[u8; 4]>,
    pub(crate) invalidate: Option<u32>,
    pub(crate) solicited: bool,
}

/// All that a program changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Effects {
    pub(crate) memory: Vec<u8>,
    pub(crate) received: Vec<Message>,
    /// The requests' local memory.
    pub(crate) locals: Vec<Vec<u8>>,
    pub(crate) flushes: u32,
    pub(crate) atomics: u32,
}

pub(crate) fn random_program(random: &mut Random, mtu: Mtu, requests: usize) -> Vec<Posted> {
    let mut program: Vec<Posted> = Vec::new();
    for _ in 0..requests {
        let mut posted = random_request(random, mtu);
        // A READ of what later requests write is not finished before them, unless they wait for it.
        let reads_written = |before: &Posted| match before.request.verb {
            Verb::Read { address, .. } => address >= u64::from(READ_ONLY),
            _ => false,
        };
        posted.request.fence |= program.iter().rev().take_while(|p| !p.request.fence).any(reads_written)
            || program.last().is_some_and(reads_written);
        program.push(posted);
    }
    program
}

fn random_request(random: &mut Random, mtu: Mtu) -> Posted {
    let length = match random.below(4) {
        0 => random.below(17),
        1 => mtu.bytes() * random.below(4),
        _ => random.below(mtu.bytes() * 6),
    }
    .min(WRITTEN);
    let immediate = random.chance(400).then(|| random.below(u32::MAX).to_be_bytes());
    let written = u64::from(READ_ONLY + random.below(WRITTEN - length + 1));
    let word = ATOMICS + u64::from(8 * random.below(WORDS));
    let (verb, length) = match random.below(12) {
        0..3 => (Verb::Send { immediate }, length),
        3 => (Verb::SendInvalidate { key: random.below(u32::MAX) }, length),
        4..7 => (Verb::Write { address: written, key: KEY, immediate }, length),
        7 => (Verb::Read { address: u64::from(random.below(READ_ONLY - length + 1)), key: KEY }, length),
        8 => (Verb::Read { address: written, key: KEY }, length),
        9 => (Verb::FetchAdd { address: word, key: KEY, add: random.next() }, 8),
        10 if random.chance(500) => {
            (Verb::CompareSwap { address: word, key: KEY, compare: 0, swap: random.next() }, 8)
        }
        10 => (Verb::AtomicWrite { address: word, key: KEY }, 8),
        _ => {
            let flush = Feth { persistent: true, ..Feth::default() };
            (Verb::Flush { address: written, key: KEY, flush }, length)
        }
    };
    let mut local = vec![0; length as usize];
    if !matches!(verb, Verb::Flush { .. }) {
        random.fill(&mut local);
    }
    Posted {
        request: Request { verb, length, solicited: random.chance(300), fence: random.chance(100) },
        local,
    }
}

/// What the program does if each request is executed at once.
pub(crate) fn execute(program: &[Posted], memory: Vec<u8>) -> Effects {
    let locals = program.iter().map(|posted| posted.local.clone()).collect();
    let mut effects = Effects { memory, received: Vec::new(), locals, flushes: 0, atomics: 0 };
    for (index, Posted { request, local }) in program.iter().enumerate() {
        let solicited = request.solicited;
        let mut receive = |bytes, immediate, invalidate| {
            effects.received.push(Message { bytes, immediate, invalidate, solicited });
        };
        match request.verb {
            Verb::Send { immediate } => receive(local.clone(), immediate, None),
            Verb::SendInvalidate { key } => receive(local.clone(), None, Some(key)),
            Verb::Write { address, immediate, .. } => {
                effects.memory[range(address, local.len())].copy_from_slice(local);
                if immediate.is_some() {
                    effects.received.push(Message {
                        bytes: Vec::new(),
                        immediate,
                        invalidate: None,
                        solicited,
                    });
                }
            }
            Verb::Read { address, .. } => {
                effects.locals[index] = effects.memory[range(address, local.len())].to_vec();
            }
            Verb::AtomicWrite { address, .. } => {
                effects.memory[range(address, 8)].copy_from_slice(local);
                effects.atomics += 1;
            }
            Verb::FetchAdd { address, add, .. } => {
                let original = atomic(&mut effects.memory, address, |value| value.wrapping_add(add));
                effects.locals[index] = original.to_le_bytes().to_vec();
                effects.atomics += 1;
            }
            Verb::CompareSwap { address, compare, swap, .. } => {
                let change = |value| if value == compare { swap } else { value };
                let original = atomic(&mut effects.memory, address, change);
                effects.locals[index] = original.to_le_bytes().to_vec();
                effects.atomics += 1;
            }
            Verb::Flush { .. } => effects.flushes += 1,
        }
    }
    effects
}

pub(crate) fn range(address: u64, length: usize) -> std::ops::Range<usize> {
    let start = usize::try_from(address).expect("a small address");
    start..start + length
}

/// Changes a word, and returns what was there.
pub(crate) fn atomic(memory: &mut [u8], address: u64, change: impl FnOnce(u64) -> u64) -> u64 {
    let word = &mut memory[range(address, 8)];
    let original = u64::from_le_bytes(word.try_into().expect("eight bytes"));
    word.copy_from_slice(&change(original).to_le_bytes());
    original
}
