//! What an invalidation, a wait or a command waits for.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use refault_bus::ats::{InvalidationRequest, RequestKind, TranslationAgent, TranslationRequest};
use refault_bus::dma::{DmaMemory, GuestRam, MemoryError};
use refault_bus::layer::MemoryLayer;
use refault_bus::mmio::MmioDevice;
use refault_bus::{Bdf, Gpa, Iova, Pasid};
use refault_iommu::Iommu;

use crate::support::descriptors as d;
use crate::support::*;

/// Time that a faulty unit gets to show its fault; it decides no verdict on a right one.
const PAUSE: Duration = Duration::from_millis(100);

type Hook = Box<dyn FnOnce() + Send>;

/// Runs a hook inside the next write of a page request.
struct Trap {
    ram: Arc<GuestRam>,
    hook: Arc<Mutex<Option<Hook>>>,
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
        let hook = Arc::<Mutex<Option<Hook>>>::default();
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
        second.try_recv().expect("the first request is written").join().unwrap();
        assert_eq!(drained, guest.read64(reg::PQT), "a request came after the drain");
        assert_eq!(drained, 64);
    }
}

/// An invalidation of all address spaces, with which the unit empties a device.
const EVERYTHING: InvalidationRequest = InvalidationRequest { pasid: None, iova: Iova(0), size_shift: 64 };

/// What the guest has the unit do.
type Command = fn(&Guest);

#[test]
fn a_command_is_done_when_every_device_has_been_emptied() {
    let commands: [(Command, u32); 3] = [
        (|guest| guest.clear_command(reg::TE), reg::TE | reg::SRTP),
        (|guest| guest.set_command(reg::TE), reg::SRTP),
        (Guest::set_root, reg::TE | reg::SRTP),
    ];
    for (index, (command, before)) in commands.into_iter().enumerate() {
        let guest = Guest::booted();
        let other = Device::attach(&guest.iommu, Bdf(0x20));
        if before & reg::TE == 0 {
            guest.clear_command(reg::TE);
        }
        drop((guest.device.invalidations(), other.invalidations()));
        let (iommu, status) = (guest.iommu.clone(), Arc::new(AtomicU32::new(0)));
        let seen = status.clone();
        guest.device.on_call(move || {
            let mut data = [0; 4];
            iommu.read(reg::GSTS, &mut data);
            seen.store(u32::from_le_bytes(data), Ordering::SeqCst);
        });
        command(&guest);
        assert_eq!(guest.device.invalidations(), [EVERYTHING], "command {index}");
        assert_eq!(other.invalidations(), [EVERYTHING], "command {index}");
        assert_eq!(status.load(Ordering::SeqCst), before | reg::QIE, "command {index}");
    }
}

#[test]
fn a_context_flush_empties_the_devices_that_it_names() {
    let other = Bdf(NIC.0 + 2);
    let by_register: Command = |guest| guest.write64(reg::CCMD, 1 << 63 | 1 << 61);
    let cases: [(Command, bool, bool); 5] = [
        (|guest| guest.submit_raw(&[d::context_device(NIC, 0)]), true, false),
        (|guest| guest.submit_raw(&[d::context_device(Bdf(NIC.0 + 2), 0)]), false, true),
        // The function mask drops bits 1:0.
        (|guest| guest.submit_raw(&[d::context_device(NIC, 3)]), true, true),
        (|guest| guest.submit_raw(&[d::context_global()]), true, true),
        (by_register, true, true),
    ];
    for (index, (flush, takes_nic, takes_other)) in cases.into_iter().enumerate() {
        let guest = Guest::booted();
        let neighbour = Device::attach(&guest.iommu, other);
        guest.device.invalidations();
        flush(&guest);
        let emptied = |device: &Device| device.invalidations() == [EVERYTHING];
        assert_eq!((emptied(&guest.device), emptied(&neighbour)), (takes_nic, takes_other), "case {index}");
    }
}

#[test]
fn a_reset_empties_every_device() {
    let guest = Guest::booted();
    guest.device.invalidations();
    guest.iommu.reset();
    assert_eq!(guest.device.invalidations(), [EVERYTHING]);
}

#[test]
fn every_untranslated_requester_is_waited_for_however_many_address_spaces_another_has_used() {
    let guest = Guest::booted();
    let other = Bdf(0x20);
    let neighbour = Device::attach(&guest.iommu, other);
    guest.store(context_entry_at(&guest, other), context(guest.layout.directory));
    for pasid in 1..=5000 {
        set_pasid_entry(&guest, pasid, [0x109, 0x80_0000 | u64::from(SVA_DOMAIN), 0]);
        guest.dma(Pasid::new(pasid), Iova(0x1000), true).unwrap();
    }
    let request = guest.request(Some(PASID), Iova(0x1000), true);
    let kind = RequestKind::Untranslated;
    guest.iommu.translate(&TranslationRequest { requester: other, kind, ..request }).unwrap();
    assert!(guest.submit(&[d::piotlb_all(SVA_DOMAIN, PASID)]));
    assert_eq!((guest.device.drains(), neighbour.drains()), (1, 1));
}

#[test]
fn a_flush_by_register_waits_for_accesses_that_another_flush_is_waiting_for() {
    let flushes: [fn(&Iommu); 2] = [
        |iommu| iommu.write(reg::IOTLB, &(1u64 << 63 | 1 << 60).to_le_bytes()),
        |iommu| iommu.write(reg::CCMD, &(1u64 << 63 | 1 << 61).to_le_bytes()),
    ];
    for (index, flush) in flushes.into_iter().enumerate() {
        let guest = Guest::booted();
        guest.map_user(VA, 0x8000);
        guest.dma(Some(PASID), VA, true).unwrap();
        let (returned, too_early) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (iommu, outcome, once) = (guest.iommu.clone(), too_early.clone(), Arc::<AtomicBool>::default());
        // The access is still in flight: the flush by the other vCPU has to wait for it as well.
        guest.device.on_call(move || {
            if once.swap(true, Ordering::SeqCst) {
                return;
            }
            let (iommu, done) = (iommu.clone(), returned.clone());
            thread::spawn(move || {
                flush(&iommu);
                done.store(true, Ordering::SeqCst);
            });
            thread::sleep(PAUSE);
            outcome.store(returned.load(Ordering::SeqCst), Ordering::SeqCst);
        });
        assert!(guest.submit(&[d::iotlb_global()]));
        assert!(!too_early.load(Ordering::SeqCst), "flush {index}");
    }
}
