//! An invalidation, against a copy and against a fill of the device TLB.
//!
//! A page is moved from one frame to another as the kernel does it: it changes its table, has the device invalidate, and
//! uses the old frame for something else.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use refault_bus::ats::{InvalidationRequest, Translation};
use refault_bus::{Gpa, Iova, Pasid};

use crate::guard::Guards;
use crate::memory::atc::Atc;

/// The page that is moved.
const PAGE: Iova = Iova(0x7000);
const PASID: Option<Pasid> = Pasid::new(1);
const MOVED: InvalidationRequest = InvalidationRequest { pasid: PASID, iova: PAGE, size_shift: 12 };

/// What is in a frame: what the device has copied there, or what the kernel uses it for later.
const COPIED: u64 = 1;
const REUSED: u64 = 2;

/// The guards of a worker and of register accesses, and the kernel's memory.
struct Device {
    guards: Guards<Atc>,
    /// The table's entry: the frame that the page is in.
    entry: AtomicU64,
    frames: [AtomicU64; 2],
}

impl Device {
    fn new() -> Arc<Self> {
        let guards = Guards::new((0..2).map(|_| Atc::new(4)));
        Arc::new(Self { guards, entry: AtomicU64::new(0), frames: Default::default() })
    }

    /// What the IOMMU answers now.
    fn ask(&self) -> Result<Translation, ()> {
        Ok(in_frame(self.entry.load(Ordering::Acquire)))
    }

    fn copy_to(&self, page: Translation) {
        self.frame(page).store(COPIED, Ordering::Relaxed);
    }

    fn frame(&self, page: Translation) -> &AtomicU64 {
        &self.frames[usize::from(page.gpa != Gpa(0))]
    }

    /// Moves the page to frame 1. Frame 0 is the kernel's on return.
    fn move_page(&self) {
        self.entry.store(1, Ordering::Release);
        self.guards.pass(|atc| atc.invalidate(&MOVED));
    }
}

fn in_frame(frame: u64) -> Translation {
    Translation { gpa: Gpa(frame << 12), page_shift: 12, read: true, write: true }
}

/// An answer that the IOMMU gave before.
struct Asked<'a> {
    guards: &'a Guards<Atc>,
    answer: Result<Translation, ()>,
}

impl<'a> Asked<'a> {
    fn now(device: &'a Device) -> Self {
        Self { guards: &device.guards, answer: device.ask() }
    }

    fn ask(&self) -> Result<Translation, ()> {
        self.answer
    }
}

/// Nothing is copied to where a page was once the invalidation has completed, neither by a worker that finds the page
/// cached nor by register accesses, which have a guard of their own.
pub fn copies() {
    let device = Device::new();
    let copier = |guard: usize, turns: u32| {
        let device = device.clone();
        thread::spawn(move || {
            for _ in 0..turns {
                let mut atc = device.guards.of(guard).enter();
                if let Ok(page) = atc.translate(PASID, PAGE, true, || device.ask()) {
                    device.copy_to(page);
                }
            }
        })
    };
    let copiers = [copier(0, 2), copier(1, 1)];
    device.move_page();
    device.frames[0].store(REUSED, Ordering::Relaxed);
    copiers.into_iter().for_each(|copier| copier.join().expect("it copies"));
    let found = device.frames[0].load(Ordering::Relaxed);
    assert!(found == REUSED, "a copy landed after its invalidation");
}

/// No translation from before a flush is cached after it, however far its fill had come.
pub fn fills() {
    let device = Device::new();
    let filler = thread::spawn({
        let device = device.clone();
        move || {
            let mut atc = device.guards.of(0).enter();
            atc.translate(PASID, PAGE, true, || device.ask()).expect("the page is present");
        }
    });
    device.move_page();
    filler.join().expect("it fills");
    let cached = device.guards.of(0).enter().translate(PASID, PAGE, true, || Err(()));
    assert!(cached.is_err() || cached == Ok(in_frame(1)), "a stale translation is cached after its flush");
}
