//! What an invalidation, a wait or a command waits for.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use refault_bus::Gpa;
use refault_bus::dma::{DmaMemory, GuestRam, MemoryError};
use refault_bus::layer::MemoryLayer;

use crate::support::descriptors as d;
use crate::support::*;

/// Time that a faulty unit gets to show its fault; it decides no verdict on a right one.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs a hook inside the next write of a page request.
#[derive(Clone)]
struct Trap {
    ram: Arc<GuestRam>,
    hook: Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>,
}

impl MemoryLayer for Trap {
    fn behind(&self) -> &dyn DmaMemory {
        &*self.ram
    }

    fn write(&self, gpa: Gpa, data: &[u8]) -> Result<(), MemoryError> {
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        self.ram.write(gpa, data)
    }
}

#[test]
fn a_drain_waits_for_requests_that_the_tables_have_admitted() {
    for invalidation in [Some(d::pasid_cache_global()), None] {
        let hook = Arc::<Mutex<_>>::default();
        let trap = hook.clone();
        let mut guest = Guest::powered_with(|ram| Arc::new(Trap { ram, hook: trap }));
        guest.boot();
        let status = guest.page();
        let guest = Arc::new(guest);
        // While the first request is being written, a second one is admitted, and waits for its turn.
        let (started, second) = mpsc::channel();
        let asker = guest.clone();
        *hook.lock().unwrap() = Some(Box::new(move || {
            started.send(thread::spawn(move || asker.ask(VA, true, 2))).unwrap();
            thread::sleep(PAUSE);
        }));
        guest.ask(VA, true, 1);
        let drain: Vec<_> = invalidation.into_iter().chain([d::wait_drain(status)]).collect();
        guest.submit_raw(&drain);
        let drained = guest.read64(reg::PQT);
        assert_eq!(guest.load(status), 2);
        second.recv().unwrap().join().unwrap();
        assert_eq!(drained, guest.read64(reg::PQT), "a request came after the drain");
        assert_eq!(drained, 64);
    }
}
