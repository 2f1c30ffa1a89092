//! Cables between the Ethernet ports of a machine: a link of `refault_link` with a clock, a thread and ports.
//!
//! A port sends on the thread of its worker, which may hold a guard of its NIC. What arrives at once is delivered there,
//! because a port that receives only queues; all else is delivered by the cable's own thread. A port has a carrier while
//! the far end gives a signal and the link is up. It hears of that with no lock of the cable held.

mod capture;
mod impaired;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use anyhow::Result;
use refault_bus::clock::Clock;
use refault_bus::wire::{EthernetFrame, Wire, WirePort};
use refault_link::{Counters, End, Impairments};

pub use self::capture::CaptureTo;
use self::capture::{Tap, start};
use self::impaired::Impaired;

/// What happens on the cables of a machine, and who looks on.
#[derive(Default)]
pub struct CableOptions {
    /// What happens to the frames that each Ethernet port sends, in the order of the NICs; nothing to those of further
    /// ports.
    pub sends: Vec<Impairments>,
    /// Where to write what passes.
    pub capture: Option<CaptureTo>,
    /// What follows the last port of the machine: the way out of it.
    pub uplink: Option<Port>,
}

/// An Ethernet port and the name of its NIC.
pub struct Port {
    /// Name, such as `nic0`.
    pub name: String,
    /// What receives.
    pub port: Arc<dyn WirePort>,
    /// Connects what it sends.
    pub plug: Box<dyn FnOnce(Arc<dyn Wire>)>,
}

/// The cables of a machine. Dropping them ends their threads; frames that are on their way are lost.
#[derive(Default)]
pub struct Cables {
    cables: Vec<Cable>,
    capture: Option<JoinHandle<()>>,
    /// Kept alive: a cable knows its ports by weak references.
    uplink: Option<Arc<dyn WirePort>>,
}

struct Cable {
    names: [String; 2],
    wire: Joined,
}

enum Joined {
    Perfect(Arc<Perfect>),
    Impaired(Impaired),
}

/// What has passed a cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CableCounters {
    /// Names of both ends.
    pub names: [String; 2],
    /// What each of them sent.
    pub sends: [Counters; 2],
}

impl CableCounters {
    /// A line for each end that counts the frames it sent.
    #[must_use]
    pub fn lines(&self) -> [String; 2] {
        End::BOTH.map(|end| {
            let sends = self.sends[end.index()];
            let [from, to] = [end, end.other()].map(|end| &self.names[end.index()]);
            let mut line =
                format!("{from} to {to}: {} frames sent, {} delivered", sends.sent, sends.delivered);
            for (count, what) in [
                (sends.lost, "lost by chance"),
                (sends.dropped, "dropped by a rule"),
                (sends.overflown, "dropped from a full queue"),
                (sends.down, "lost while the link was down"),
                (sends.corrupted, "corrupted"),
                (sends.duplicated, "duplicated"),
                (sends.reordered, "reordered"),
            ] {
                if count > 0 {
                    line += &format!(", {count} {what}");
                }
            }
            line
        })
    }
}

impl Cables {
    /// Joins the first port to the second, the third to the fourth and so on. An odd last one is alone, without a signal.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn join(ports: Vec<Port>, options: CableOptions, clock: &Arc<dyn Clock>) -> Result<Self> {
        let CableOptions { sends, capture, uplink } = options;
        let mut cables = Self::default();
        cables.uplink = uplink.as_ref().map(|uplink| uplink.port.clone());
        let ports: Vec<_> = ports.into_iter().chain(uplink).collect();
        let names: Vec<_> = ports.iter().map(|port| port.name.clone()).collect();
        let tap = capture.map(|to| start(to, names)).transpose()?;
        let tap = tap.map(|(tap, thread)| {
            cables.capture = Some(thread);
            tap
        });
        let (mut ports, mut sends) = (ports.into_iter(), sends.into_iter());
        for first in (0..).step_by(2) {
            let (Some(a), Some(b)) = (ports.next(), ports.next()) else { break };
            let sends = [sends.next(), sends.next()].map(Option::unwrap_or_default);
            let tap = tap.as_ref().map(|tap| (tap.clone(), first));
            cables.cables.push(Cable::new([a, b], sends, tap, clock)?);
        }
        Ok(cables)
    }

    /// What has passed each cable so far.
    #[must_use]
    pub fn counters(&self) -> Vec<CableCounters> {
        let of = |cable: &Cable| {
            let sends = match &cable.wire {
                Joined::Perfect(perfect) => perfect.counters(),
                Joined::Impaired(impaired) => impaired.counters(),
            };
            CableCounters { names: cable.names.clone(), sends }
        };
        self.cables.iter().map(of).collect()
    }

    /// Ends all traffic, and with it the threads. The counters stay.
    pub fn end(&mut self) {
        self.uplink = None;
        for cable in &mut self.cables {
            match &mut cable.wire {
                Joined::Perfect(perfect) => perfect.is_cut.store(true, Ordering::Relaxed),
                Joined::Impaired(impaired) => impaired.end(),
            }
        }
        // It ends when no cable has anything for it any more.
        if let Some(thread) = self.capture.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Cables {
    fn drop(&mut self) {
        self.end();
    }
}

impl Cable {
    /// Joins two ports. `tap` has the number of the first port in the capture.
    fn new(
        ends: [Port; 2],
        sends: [Impairments; 2],
        tap: Option<(Tap, u32)>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self> {
        let names = [ends[0].name.clone(), ends[1].name.clone()];
        let [a, b] = ends;
        let ports = [a.port, b.port];
        let weak = [Arc::downgrade(&ports[0]), Arc::downgrade(&ports[1])];
        let wire = if sends.iter().all(Impairments::is_perfect) && tap.is_none() {
            let perfect = Arc::new(Perfect::new(weak));
            for (end, plug) in End::BOTH.into_iter().zip([a.plug, b.plug]) {
                plug(Arc::new(PerfectEnd { cable: perfect.clone(), end }));
            }
            Joined::Perfect(perfect)
        } else {
            let impaired = Impaired::start(sends, weak, tap, clock.clone())?;
            for (end, plug) in End::BOTH.into_iter().zip([a.plug, b.plug]) {
                plug(impaired.end_of(end));
            }
            Joined::Impaired(impaired)
        };
        Ok(Self { names, wire })
    }
}

/// A cable to which nothing happens: each frame arrives within the call that sends it, and takes no lock.
struct Perfect {
    ports: [Weak<dyn WirePort>; 2],
    sent: [AtomicU64; 2],
    sent_bytes: [AtomicU64; 2],
    signals: [AtomicBool; 2],
    is_cut: AtomicBool,
}

/// One end of it, as its port sends into it.
struct PerfectEnd {
    cable: Arc<Perfect>,
    end: End,
}

impl Perfect {
    fn new(ports: [Weak<dyn WirePort>; 2]) -> Self {
        Self {
            ports,
            sent: Default::default(),
            sent_bytes: Default::default(),
            signals: Default::default(),
            is_cut: AtomicBool::new(false),
        }
    }

    fn counters(&self) -> [Counters; 2] {
        End::BOTH.map(|end| {
            let [sent, sent_bytes] =
                [&self.sent, &self.sent_bytes].map(|counts| counts[end.index()].load(Ordering::Relaxed));
            Counters { sent, sent_bytes, delivered: sent, ..Counters::default() }
        })
    }
}

impl Wire for PerfectEnd {
    fn send(&self, frame: EthernetFrame) {
        let (cable, from) = (&self.cable, self.end.index());
        let Some(port) = cable.ports[self.end.other().index()].upgrade() else { return };
        if cable.is_cut.load(Ordering::Relaxed) {
            return;
        }
        cable.sent[from].fetch_add(1, Ordering::Relaxed);
        cable.sent_bytes[from].fetch_add(frame.bytes.len() as u64, Ordering::Relaxed);
        port.receive(frame);
    }

    fn set_signal(&self, on: bool) {
        let is_news = self.cable.signals[self.end.index()].swap(on, Ordering::Relaxed) != on;
        let port = self.cable.ports[self.end.other().index()].upgrade();
        if let Some(port) = port.filter(|_| is_news) {
            port.set_carrier(on);
        }
    }

    fn is_ready(&self) -> bool {
        self.cable.ports[self.end.other().index()].upgrade().is_none_or(|port| port.has_room())
    }
}

#[cfg(test)]
mod tests;
