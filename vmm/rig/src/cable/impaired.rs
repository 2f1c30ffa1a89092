//! A cable on which things happen to frames, or which is looked at: it has a link, a lock and a thread.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam::channel::{Receiver, Sender, after, bounded, never, select};
use refault_bus::clock::Clock;
use refault_bus::sync::lock;
use refault_bus::wire::{EthernetFrame, Wire, WirePort};
use refault_link::{Counters, Direction, End, Event, Impairments, Link};
use refault_os::syscalls::{ThreadKind, confine};

use super::capture::Tap;

/// Most deliveries between two looks at the stop signal, and for which the lock is held.
const BURST: usize = 64;

/// The cable, and the thread for what does not arrive at once.
pub(super) struct Impaired {
    shared: Arc<Shared>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    ports: [Weak<dyn WirePort>; 2],
    /// Held while a frame is delivered, so that frames keep their order. A port that receives only queues.
    state: Mutex<State>,
    wake: Sender<()>,
}

struct State {
    /// `None` once the cable is cut.
    link: Option<Link>,
    /// Where frames are captured, and the number of the first port there.
    tap: Option<(Tap, u32)>,
    /// The link is not in an outage.
    is_up: bool,
    /// Which ends give a signal.
    signals: [bool; 2],
    /// What the ports know of their carriers.
    carriers: [bool; 2],
    /// Until when the thread sleeps, in nanoseconds; `None` for until it is woken.
    sleeps_until_ns: Option<u64>,
    counters: [Counters; 2],
}

impl Impaired {
    /// Starts the thread of a cable between these ports.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(
        sends: [Impairments; 2],
        ports: [Weak<dyn WirePort>; 2],
        tap: Option<(Tap, u32)>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let link = Link::new(sends, clock.now_ns());
        let sleeps_until_ns = link.next_due();
        let state = Mutex::new(State {
            link: Some(link),
            tap,
            is_up: true,
            signals: Default::default(),
            carriers: Default::default(),
            sleeps_until_ns,
            counters: Default::default(),
        });
        let ((wake, woken), (stop, stopped)) = (bounded(1), bounded(0));
        let shared = Arc::new(Shared { clock, ports, state, wake });
        let cable = shared.clone();
        let thread = thread::Builder::new().name("cable".into()).spawn(move || {
            confine(ThreadKind::Device);
            cable.serve(&woken, &stopped);
        });
        let thread = thread.context("cannot start a thread for a link")?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// What the port at `end` sends into.
    pub(super) fn end_of(&self, end: End) -> Arc<dyn Wire> {
        Arc::new(ImpairedEnd { cable: self.shared.clone(), end })
    }

    pub(super) fn counters(&self) -> [Counters; 2] {
        self.shared.lock().counters()
    }

    /// Cuts the cable. What is on its way is lost, and the capture hears nothing more from here.
    pub(super) fn end(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let mut state = self.shared.lock();
        state.counters = state.counters();
        (state.link, state.tap) = (None, None);
    }
}

impl Drop for Impaired {
    fn drop(&mut self) {
        self.end();
    }
}

impl State {
    fn counters(&self) -> [Counters; 2] {
        self.link.as_ref().map_or(self.counters, |link| End::BOTH.map(|end| link.counters(end)))
    }

    /// The next port to hear of its carrier, and what.
    fn news(&mut self) -> Option<(End, bool)> {
        End::BOTH.into_iter().find_map(|end| {
            let carrier = self.is_up && self.signals[end.other().index()];
            let is_news = std::mem::replace(&mut self.carriers[end.index()], carrier) != carrier;
            is_news.then_some((end, carrier))
        })
    }

    fn capture(
        &self,
        now_ns: u64,
        (end, direction): (End, Direction),
        frame: &EthernetFrame,
        comment: Option<String>,
    ) {
        if let Some((tap, first)) = &self.tap {
            let port = first + if end == End::A { 0 } else { 1 };
            tap.add(port, now_ns, direction, frame, comment);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn send(&self, from: End, frame: EthernetFrame) {
        let mut state = self.lock();
        let now_ns = self.clock.now_ns();
        let Some(link) = &mut state.link else { return };
        let fate = link.decide(from, &frame, now_ns);
        if state.tap.is_some() {
            state.capture(now_ns, (from, Direction::Out), &frame, fate.comment());
        }
        let Some(link) = &mut state.link else { return };
        let arrived = link.carry(from, frame, &fate);
        let due_ns = link.next_due();
        if let Some(frame) = arrived {
            self.deliver(&state, from.other(), frame, now_ns);
        }
        let is_late = due_ns.is_some_and(|due| state.sleeps_until_ns.is_none_or(|until| due < until));
        if is_late {
            state.sleeps_until_ns = due_ns;
            // If there is no room, it has been woken already.
            let _ = self.wake.try_send(());
        }
    }

    fn deliver(&self, state: &State, to: End, frame: EthernetFrame, now_ns: u64) {
        state.capture(now_ns, (to, Direction::In), &frame, None);
        if let Some(port) = self.ports[to.index()].upgrade() {
            port.receive(frame);
        }
    }

    /// Tells ports of their carriers. Only the thread does, so that they hear of changes in order.
    fn tell<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while let Some((end, carrier)) = state.news() {
            drop(state);
            if let Some(port) = self.ports[end.index()].upgrade() {
                port.set_carrier(carrier);
            }
            state = self.lock();
        }
        state
    }

    /// Delivers what is due. Returns when the next thing is.
    fn deliver_due(&self) -> Option<u64> {
        let mut state = self.lock();
        for _ in 0..BURST {
            let now_ns = self.clock.now_ns();
            match state.link.as_mut()?.due(now_ns) {
                Some(Event::Frame { to, frame }) => self.deliver(&state, to, frame, now_ns),
                Some(Event::Carrier(up)) => state.is_up = up,
                None => break,
            }
            state = self.tell(state);
        }
        state = self.tell(state);
        let next_ns = state.link.as_ref()?.next_due();
        state.sleeps_until_ns = next_ns;
        next_ns
    }

    fn serve(&self, woken: &Receiver<()>, stopped: &Receiver<()>) {
        loop {
            let next_ns = self.deliver_due();
            let pause = next_ns.map(|at_ns| at_ns.saturating_sub(self.clock.now_ns()));
            let due = pause.map_or_else(never, |ns| after(Duration::from_nanos(ns)));
            select! {
                recv(woken) -> _ => {},
                recv(due) -> _ => {},
                recv(stopped) -> _ => return,
            }
        }
    }
}

/// One end of the cable, as its port sends into it.
struct ImpairedEnd {
    cable: Arc<Shared>,
    end: End,
}

impl Wire for ImpairedEnd {
    fn send(&self, frame: EthernetFrame) {
        self.cable.send(self.end, frame);
    }

    fn set_signal(&self, on: bool) {
        self.cable.lock().signals[self.end.index()] = on;
        let _ = self.cable.wake.try_send(());
    }

    fn is_ready(&self) -> bool {
        self.cable.ports[self.end.other().index()].upgrade().is_none_or(|port| port.has_room())
    }
}
