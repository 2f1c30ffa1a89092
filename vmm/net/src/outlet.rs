//! The far end of a wire.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use refault_bus::sync::lock;
use refault_bus::wire::{EthernetFrame, Wire, WirePort};
use refault_os::syscalls::{ThreadKind, confine};

use crate::address::Address;
use crate::datagram::Datagrams;
use crate::line::Line;
use crate::queue::Queue;
use crate::stream::Rendezvous;
use crate::tap::Tap;

/// What passed an outlet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutletStats {
    /// Frames that left.
    pub sent: u64,
    /// Frames that came.
    pub received: u64,
    /// Frames that did not leave: nothing was there to take them, or not in time.
    pub dropped: u64,
}

/// Which of two that meet: so that their addresses differ without more options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that listens; of two UDP addresses the lower one; the host's guest.
    First,
    /// The other one.
    Second,
}

/// The far end of a wire that leads out of the process. Dropping it hangs up.
pub struct Outlet {
    address: Address,
    side: Side,
    queue: Arc<Queue>,
    /// Open, and not started.
    opened: Mutex<Option<Opened>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What an outlet's threads use.
enum Opened {
    Unix(Rendezvous),
    Udp(Datagrams),
    Tap(Tap),
}

impl Outlet {
    /// Opens an address, which needs rights that a process may give up later. Nothing passes until [`Self::start`].
    ///
    /// # Errors
    ///
    /// The address is in use, or this process may not use it; the message says what to do.
    pub fn open(address: &Address) -> Result<Arc<Self>> {
        let opened = match address {
            Address::Unix(path) => Rendezvous::open(path).map(Opened::Unix),
            Address::Udp { local, remote } => Datagrams::open(*local, *remote).map(Opened::Udp),
            Address::Tap(name) => Tap::open(name).map(Opened::Tap),
        };
        let opened = opened.with_context(|| format!("{address}"))?;
        let side = match (&opened, address) {
            (Opened::Unix(rendezvous), _) if !rendezvous.listens() => Side::Second,
            (_, Address::Udp { local, remote }) if local > remote => Side::Second,
            _ => Side::First,
        };
        Ok(Arc::new(Self {
            address: address.clone(),
            side,
            queue: Arc::new(Queue::new()),
            opened: Mutex::new(Some(opened)),
            threads: Mutex::default(),
        }))
    }

    /// Which of the two that meet this one is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Starts to carry frames between `wire` and what is out there. Does nothing the second time.
    ///
    /// # Errors
    ///
    /// A thread cannot be started.
    pub fn start(&self, wire: Arc<dyn Wire>) -> Result<()> {
        let Some(opened) = lock(&self.opened).take() else { return Ok(()) };
        let queue = self.queue.clone();
        let [reader, writer] = [Line { queue: queue.clone(), wire: wire.clone() }, Line { queue, wire }];
        match opened {
            Opened::Unix(rendezvous) => {
                let (peer, address) = (rendezvous.peer(), self.address.clone());
                self.spawn("net-in", move || rendezvous.run(&reader, &address))?;
                self.spawn("net-out", move || peer.write(&writer))
            }
            Opened::Udp(datagrams) => {
                let out = datagrams.share()?;
                self.spawn("net-in", move || datagrams.read(&reader))?;
                self.spawn("net-out", move || out.write(&writer))
            }
            Opened::Tap(tap) => {
                let out = tap.share()?;
                self.spawn("net-in", move || tap.read(&reader))?;
                self.spawn("net-out", move || out.write(&writer))
            }
        }
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let confined = move || {
            confine(ThreadKind::Other);
            run();
        };
        let started = thread::Builder::new().name(name.to_owned()).spawn(confined);
        lock(&self.threads).push(started.context("cannot start a thread for the network")?);
        Ok(())
    }

    /// What passed so far.
    pub fn stats(&self) -> OutletStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Queue { sent, received, dropped, .. } = &*self.queue;
        OutletStats { sent: read(sent), received: read(received), dropped: read(dropped) }
    }

    /// Hangs up.
    pub fn end(&self) {
        self.queue.end();
        for thread in lock(&self.threads).drain(..) {
            // One that panicked has reported it.
            let _ = thread.join();
        }
    }
}

impl WirePort for Outlet {
    fn receive(&self, frame: EthernetFrame) {
        self.queue.put(frame);
    }

    fn set_carrier(&self, up: bool) {
        self.queue.set_carrier(up);
    }

    fn has_room(&self) -> bool {
        self.queue.has_room()
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.end();
    }
}
