//! Both ends with memory, and the wire between them.

use refault_roce::{Packet, Psn};
use refault_transport::{
    Action, Arrival, Heard, Requester, RequesterConfig, Responder, ResponderConfig, Step,
};

use crate::Random;
use crate::program::{Effects, KEY, Message, Posted, atomic, range};
use crate::wire::{End, Wire};

/// What the ends do besides their duty, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habits {
    /// The responder has no receive request, for now.
    pub(crate) not_ready: u32,
    /// The responder says that it is ready, as it may when it was not.
    pub(crate) ready: u32,
    /// The responder drops a packet that it could have executed: a page is missing.
    pub(crate) drop: u32,
    /// The requester drops a response that it could have placed.
    pub(crate) drop_response: u32,
}

pub(crate) struct World {
    now_ns: u64,
    habits: Habits,
    random: Random,
    wire: Wire,
    pub(crate) requester: Requester,
    pub(crate) responder: Responder,
    program: Vec<Posted>,
    posted: usize,
    completed: u64,
    /// The receive request that is being filled.
    filling: Option<Vec<u8>>,
    pub(crate) effects: Effects,
}

impl World {
    pub(crate) fn new(
        (requester, responder): (RequesterConfig, ResponderConfig),
        first: Psn,
        program: Vec<Posted>,
        memory: Vec<u8>,
        (wire, habits, random): (Wire, Habits, Random),
    ) -> Self {
        let locals = program.iter().map(|posted| posted.local.clone()).collect();
        Self {
            now_ns: 0,
            habits,
            random,
            wire,
            requester: Requester::new(requester, first),
            responder: Responder::new(responder, first),
            program,
            posted: 0,
            completed: 0,
            filling: None,
            effects: Effects { memory, received: Vec::new(), locals, flushes: 0, atomics: 0 },
        }
    }

    /// Until all requests are completed, each successfully and in order. Returns the time that took.
    pub(crate) fn run(&mut self) -> u64 {
        loop {
            self.post();
            self.send();
            self.reply();
            while let Some(completion) = self.requester.next_completion() {
                assert_eq!((completion.id, completion.result), (self.completed, Ok(())));
                self.completed += 1;
            }
            if self.completed == self.program.len() as u64 {
                return self.now_ns;
            }
            let next = [self.wire.next_ns(), self.requester.deadline_ns()].into_iter().flatten().min();
            self.now_ns = next.expect("something will happen").max(self.now_ns);
            assert!(self.now_ns < 60_000_000_000, "it does not end: {:?}", self.requester);
            self.requester.expire(self.now_ns);
            while let Some(frame) = self.wire.arrive(self.now_ns) {
                match frame {
                    Some((End::Responder, packet, payload)) => self.execute(&packet, &payload),
                    Some((End::Requester, packet, payload)) => self.hear(&packet, &payload),
                    None => {}
                }
            }
        }
    }

    fn post(&mut self) {
        while let Some(posted) = self.program.get(self.posted) {
            let Some(id) = self.requester.post(posted.request) else { return };
            assert_eq!(id, self.posted as u64);
            self.posted += 1;
        }
    }

    fn send(&mut self) {
        while let Some(outgoing) = self.requester.next(self.now_ns) {
            let index = usize::try_from(outgoing.id).unwrap();
            let payload =
                &self.program[index].local[outgoing.payload.start as usize..outgoing.payload.end as usize];
            self.wire.send(self.now_ns, End::Responder, &outgoing.packet, payload);
            self.requester.sent(self.now_ns);
        }
    }

    fn reply(&mut self) {
        while let Some(reply) = self.responder.next_reply() {
            let source = reply.payload.unwrap_or_default();
            let payload = &self.effects.memory[range(source.address, source.length as usize)];
            self.wire.send(self.now_ns, End::Requester, &reply.packet, payload);
            self.responder.replied();
        }
    }

    fn hear(&mut self, packet: &Packet, payload: &[u8]) {
        let heard = self.requester.receive(packet, payload.len(), self.now_ns);
        if self.random.chance(self.habits.drop_response) {
            return;
        }
        match heard {
            Heard::Nothing => return,
            Heard::Data { id, at } => {
                let local = &mut self.effects.locals[usize::try_from(id).unwrap()];
                local[at as usize..at as usize + payload.len()].copy_from_slice(payload);
            }
            Heard::Original { id, value } => {
                self.effects.locals[usize::try_from(id).unwrap()] = value.to_le_bytes().to_vec();
            }
        }
        self.requester.placed(self.now_ns);
    }

    fn execute(&mut self, packet: &Packet, payload: &[u8]) {
        if self.random.chance(self.habits.ready) {
            self.responder.ready();
        }
        let Arrival::Execute(step) = self.responder.receive(packet, payload.len()) else { return };
        if self.random.chance(self.habits.drop) {
            return;
        }
        let takes = match step.action {
            Action::Send => step.first,
            _ => step.last.is_some_and(|last| last.immediate.is_some()),
        };
        if takes && self.random.chance(self.habits.not_ready) {
            return self.responder.not_ready(1);
        }
        match self.act(&step, payload) {
            Some(original) => self.responder.done_atomic(original),
            None => self.responder.done(),
        }
    }

    /// Does the step; an atomic returns the value from before.
    fn act(&mut self, step: &Step, payload: &[u8]) -> Option<u64> {
        let memory = &mut self.effects.memory;
        match step.action {
            Action::Send => {
                let bytes = self.filling.get_or_insert_default();
                assert_eq!(bytes.len(), step.at as usize);
                bytes.extend_from_slice(payload);
                if let Some(last) = step.last {
                    let bytes = self.filling.take().unwrap();
                    let (immediate, invalidate, solicited) =
                        (last.immediate, last.invalidate, last.solicited);
                    self.effects.received.push(Message { bytes, immediate, invalidate, solicited });
                }
            }
            Action::Write { address, key, .. } => {
                assert_eq!(key, KEY);
                memory[range(address + u64::from(step.at), payload.len())].copy_from_slice(payload);
                if let Some(last) = step.last
                    && last.immediate.is_some()
                {
                    let (immediate, solicited) = (last.immediate, last.solicited);
                    self.effects.received.push(Message {
                        bytes: Vec::new(),
                        immediate,
                        invalidate: None,
                        solicited,
                    });
                }
            }
            Action::Read(source) => assert_eq!(source.key, KEY),
            Action::AtomicWrite { address, .. } => {
                memory[range(address, 8)].copy_from_slice(payload);
                self.effects.atomics += 1;
            }
            Action::FetchAdd { address, add, .. } => {
                self.effects.atomics += 1;
                return Some(atomic(memory, address, |value| value.wrapping_add(add)));
            }
            Action::CompareSwap { address, compare, swap, .. } => {
                self.effects.atomics += 1;
                let change = |value| if value == compare { swap } else { value };
                return Some(atomic(memory, address, change));
            }
            Action::Flush { .. } => self.effects.flushes += 1,
        }
        None
    }
}
