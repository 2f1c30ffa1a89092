//! The three events: faults, invalidation completions and page requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use refault_bus::Iova;
use refault_bus::irq::MsiMessage;
use refault_bus::mmio::MmioDevice;

use crate::support::descriptors as d;
use crate::support::*;

const MASKED: u32 = 1 << 31;
const PENDING: u32 = 1 << 30;

const COMPLETION_MSI: MsiMessage = MsiMessage { address: 0xfee0_3004, data: 0x23 };

/// An event: its control register, its message, and how it is raised and serviced.
struct Event {
    control: u64,
    message: MsiMessage,
    raise: fn(&Guest),
    service: fn(&Guest),
}

const EVENTS: [Event; 4] = [
    Event {
        control: reg::PECTL,
        message: PRQ_MSI,
        raise: |guest| guest.ask(VA, true, 1),
        service: |guest| {
            guest.take_page_requests();
        },
    },
    Event {
        control: reg::FECTL,
        message: FAULT_MSI,
        raise: |guest| {
            guest.dma(None, Iova(0xdead_0000), false).unwrap_err();
        },
        service: |guest| {
            guest.service_faults();
        },
    },
    // An error that stops the queue; it is repaired and executed again.
    Event {
        control: reg::FECTL,
        message: FAULT_MSI,
        raise: |guest| guest.submit_raw(&[[0; 4]]),
        service: |guest| {
            let head = guest.read32(reg::IQH);
            (0..4).for_each(|quad| {
                guest.store(
                    guest.descriptor_at(u64::from(head) / 32) + quad * 8,
                    d::iotlb_global()[quad as usize],
                );
            });
            guest.write32(reg::FSTS, 1 << 4);
        },
    },
    Event {
        control: reg::IECTL,
        message: COMPLETION_MSI,
        raise: |guest| guest.submit_raw(&[[0x15, 0, 0, 0]]),
        service: |guest| guest.write32(reg::ICS, 1),
    },
];

fn booted() -> Guest {
    let guest = Guest::booted();
    guest.program_event(reg::IECTL, COMPLETION_MSI);
    guest
}

/// A message that is being sent while the guest masks its event was sent before: the guest does not read the mask back
/// until it is out.
fn is_masked_while_sent(event: &Event, provoke: impl Fn(&Guest)) -> bool {
    const PATIENCE: Duration = Duration::from_millis(200);
    let guest = booted();
    let masked_too_early = Arc::new(AtomicBool::new(false));
    let (iommu, control, outcome) = (guest.iommu.clone(), event.control, masked_too_early.clone());
    guest.on_signal(move |_| {
        let masked = Arc::new(AtomicBool::new(false));
        let (iommu, has_masked) = (iommu.clone(), masked.clone());
        thread::spawn(move || {
            iommu.write(control, &MASKED.to_le_bytes());
            let mut read_back = [0; 4];
            iommu.read(control, &mut read_back);
            has_masked.store(true, Ordering::SeqCst);
        });
        let start = Instant::now();
        while start.elapsed() < PATIENCE && !masked.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        outcome.store(masked.load(Ordering::SeqCst), Ordering::SeqCst);
    });
    provoke(&guest);
    assert_eq!(guest.messages(), [event.message]);
    masked_too_early.load(Ordering::SeqCst)
}

#[test]
fn no_message_is_sent_after_its_mask_was_read_back() {
    for (index, event) in EVENTS.iter().enumerate() {
        assert!(!is_masked_while_sent(event, event.raise), "event {index}, as it is raised");
        let unmask = |guest: &Guest| {
            guest.write32(event.control, MASKED);
            (event.raise)(guest);
            guest.write32(event.control, 0);
        };
        assert!(!is_masked_while_sent(event, unmask), "event {index}, as it is unmasked");
    }
}

#[test]
fn an_event_is_latched_while_masked_and_sent_once_with_the_message_of_its_unmasking() {
    for (index, event) in EVENTS.iter().enumerate() {
        let guest = booted();
        guest.write32(event.control, MASKED);
        (event.raise)(&guest);
        assert_eq!(
            (guest.messages(), guest.read32(event.control)),
            (vec![], MASKED | PENDING),
            "event {index}"
        );
        guest.write32(event.control + 4, 0x55);
        guest.write32(event.control, 0);
        assert_eq!(guest.messages(), [MsiMessage { data: 0x55, ..event.message }], "event {index}");
        assert_eq!(guest.read32(event.control), 0, "event {index}");
        guest.write32(event.control, 0);
        assert!(guest.messages().is_empty(), "event {index}");
        // Once serviced, it is raised anew.
        (event.service)(&guest);
        (event.raise)(&guest);
        assert_eq!(guest.messages().len(), 1, "event {index}");
    }
}

#[test]
fn a_masked_event_that_was_serviced_is_not_sent() {
    for (index, event) in EVENTS.iter().enumerate() {
        let guest = booted();
        guest.write32(event.control, MASKED);
        (event.raise)(&guest);
        (event.service)(&guest);
        assert_eq!(guest.read32(event.control), MASKED, "event {index}");
        guest.write32(event.control, 0);
        assert!(guest.messages().is_empty(), "event {index}");
    }
}
