//! The far end of a wire.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
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

/// The far end of a wire that leads out of the process. Dropping it hangs up.
pub struct Outlet {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

/// An outlet that is open, before its threads start.
enum Opened {
    Unix(Rendezvous),
    Udp(Datagrams),
    Tap(Tap),
}

/// An outlet that is bound, or connected, and carries nothing yet: that needs rights which a process may give up later.
pub struct Prepared(Opened, Address);

impl Prepared {
    /// Opens the address.
    ///
    /// # Errors
    ///
    /// It is in use, or this process may not use it.
    pub fn open(address: &Address) -> Result<Self> {
        let opened = match address {
            Address::Unix(path) => Rendezvous::open(path).map(Opened::Unix),
            Address::Udp { local, remote } => Datagrams::open(*local, *remote).map(Opened::Udp),
            Address::Tap(name) => Tap::open(name).map(Opened::Tap),
        };
        Ok(Self(opened.with_context(|| format!("{address}"))?, address.clone()))
    }

    /// Starts to carry frames between `wire` and what is out there.
    ///
    /// # Errors
    ///
    /// A thread cannot be started.
    pub fn start(self, wire: Arc<dyn Wire>) -> Result<Arc<Outlet>> {
        let Self(opened, address) = self;
        let queue = Arc::new(Queue::new());
        let mut outlet = Outlet { queue: queue.clone(), threads: Vec::new() };
        let [reader, writer] = [Line { queue: queue.clone(), wire: wire.clone() }, Line { queue, wire }];
        match opened {
            Opened::Unix(rendezvous) => {
                let peer = rendezvous.peer();
                outlet.spawn("net-in", move || rendezvous.run(&reader, &address))?;
                outlet.spawn("net-out", move || peer.write(&writer))?;
            }
            Opened::Udp(datagrams) => {
                let out = datagrams.share()?;
                outlet.spawn("net-in", move || datagrams.read(&reader))?;
                outlet.spawn("net-out", move || out.write(&writer))?;
            }
            Opened::Tap(tap) => {
                let out = tap.share()?;
                outlet.spawn("net-in", move || tap.read(&reader))?;
                outlet.spawn("net-out", move || out.write(&writer))?;
            }
        }
        Ok(Arc::new(outlet))
    }
}

impl Outlet {
    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
        let confined = move || {
            confine(ThreadKind::Other);
            run();
        };
        let started = thread::Builder::new().name(name.to_owned()).spawn(confined);
        self.threads.push(started.context("cannot start a thread for the network")?);
        Ok(())
    }

    /// What passed so far.
    pub fn stats(&self) -> OutletStats {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let Queue { sent, received, dropped, .. } = &*self.queue;
        OutletStats { sent: read(sent), received: read(received), dropped: read(dropped) }
    }
}

impl WirePort for Outlet {
    fn receive(&self, frame: EthernetFrame) {
        self.queue.put(frame);
    }

    fn set_carrier(&self, _up: bool) {}

    fn has_room(&self) -> bool {
        self.queue.has_room()
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.queue.end();
        for thread in self.threads.drain(..) {
            // One that panicked has reported it.
            let _ = thread.join();
        }
    }
}
