//! When a switch in configuration space is off, or the device is reset, nothing that it forbids is under way.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use refault_abi::regs::{CONTROL_RESET, REG_CONTROL};
use refault_bus::Gpa;
use refault_bus::dma::DmaMemory;
use refault_bus::probe::Stage;
use refault_nic::Nic;
use refault_pci::PciFunction;

use crate::support::*;

const HEAP: u64 = 0x7f00_0000_0000;
/// Two chunks.
const BYTES: u32 = 0x2_0000;
/// How long an access that must not return early is watched.
const WATCHED: Duration = Duration::from_millis(100);

/// A write of the guest to the device.
#[derive(Clone, Copy, Debug)]
enum Write {
    Config(u16, u16),
    Register(u64, u32),
}

impl Write {
    fn to(self, nic: &Nic) {
        match self {
            Self::Config(offset, value) => drop(nic.config_write(offset, &value.to_le_bytes())),
            Self::Register(offset, value) => nic.bar_write(0, offset, &value.to_le_bytes()),
        }
    }
}

/// Bus master off; D3hot; ATS off; PASID off.
fn switches(bench: &Bench) -> [(&'static str, Write); 4] {
    let power = bench.standard(0x01) + 4;
    [
        ("bus master", Write::Config(4, 0x2)),
        ("D3hot", Write::Config(power, bench.config16(power) | 3)),
        ("ATS", Write::Config(bench.extended(0x0f) + 6, 0)),
        ("PASID", Write::Config(bench.extended(0x1b) + 6, 0)),
    ]
}

/// The same, function-level reset, and device reset.
fn ends(bench: &Bench) -> Vec<(&'static str, Write)> {
    let control = bench.standard(0x10) + 8;
    let resets = [
        ("FLR", Write::Config(control, bench.config16(control) | 0x8000)),
        ("reset", Write::Register(REG_CONTROL, CONTROL_RESET)),
    ];
    switches(bench).into_iter().chain(resets).collect()
}

/// A worker is held back in the middle of a copy, while the guest writes to the device on another processor.
#[test]
fn nothing_lands_when_the_write_has_returned() {
    // The hook is in the copy between two regions.
    if IN_PACKETS {
        return;
    }
    let count = ends(&Bench::default()).len();
    for case in 0..count {
        let mut pair = Pair::new();
        let (name, write) = ends(&pair.bench)[case];
        let target = pair.bench.allocate(u64::from(BYTES));
        for page in (0..u64::from(BYTES)).step_by(0x1000) {
            pair.bench.iommu.map(PASID, HEAP + page, target + page, true);
        }
        let (returned, seen) = mpsc::channel();
        let early: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
        let (nic, ram, iommu) = (pair.bench.nic.clone(), pair.bench.ram.clone(), pair.bench.iommu.clone());
        let found = early.clone();
        let (report, watch) = mpsc::channel();
        pair.bench.hooks.before_copy(move || {
            thread::spawn(move || {
                // Without ATS the device may ask for each access; it finds nothing any more.
                iommu.forget(PASID);
                write.to(&nic);
                let mut landed = vec![0; BYTES as usize];
                ram.read(Gpa(target), &mut landed).unwrap();
                let _ = report.send(landed);
            });
            // It waits for the copy: it cannot return while this is held back.
            *found.lock().unwrap() = watch.recv_timeout(WATCHED).ok();
            returned.send(watch).unwrap();
        });
        pair.run(&pair.write(1, BYTES, HEAP, pair.process));
        let watch = seen.recv().unwrap();
        let early = early.lock().unwrap().take();
        let landed = early.unwrap_or_else(|| watch.recv().unwrap());
        pair.bench.settle();
        assert!(landed == pair.bench.bytes(target, BYTES as usize), "{name}: bytes landed after the write");
        assert!(landed[BYTES as usize / 2..].iter().all(|&byte| byte == 0), "{name}: the device went on");
        assert!(landed[..BYTES as usize / 2].iter().any(|&byte| byte != 0), "{name}: nothing was copied");
    }
}

#[test]
fn no_page_request_leaves_when_the_write_has_returned() {
    let pri = |bench: &Bench| ("PRI", Write::Config(bench.extended(0x13) + 4, 0));
    for case in 0..5 {
        let mut pair = Pair::new();
        let (name, write) = switches(&pair.bench).into_iter().chain([pri(&pair.bench)]).nth(case).unwrap();
        let nic = pair.bench.nic.clone();
        pair.bench.probe.at(Stage::Miss, move || write.to(&nic));
        pair.run(&pair.write(1, 8, HEAP, pair.process));
        assert!(pair.bench.iommu.take_requests().is_empty(), "{name}");
        assert_eq!(pair.bench.nic.stats().page_requests_called_off, 1, "{name}");
    }
}
