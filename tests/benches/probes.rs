//! The cost of observation: a device with the recorder and the default share of sampled requests, against one without.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use refault_bus::Gpa;
use refault_bus::clock::Clock;
use refault_bus::probe::NoProbe;
use refault_model::paging::{PageSize, Rights};
use refault_nic::NicConfig;
use refault_observe::trace::Recorder;
use refault_rig::clock::WallClock;
use refault_tests::bench::{Bench, Comparison, Target, timed};
use refault_tests::bench_fault::fault;
use refault_tests::bench_rig::{Rig, SOURCE, TARGET};

/// Bytes of the buffers of a stream.
const BUFFER: u64 = 1 << 20;
/// Most requests under one doorbell: what a ring holds.
const BURST: u64 = 32;

fn main() -> ExitCode {
    let mut bench = Bench::from_arguments();
    streams(&mut bench);
    faults(&mut bench);
    bench.finish()
}

/// Two machines, alike but for the recorder of the first.
fn pair() -> [Rig; 2] {
    let clock: Arc<dyn Clock> = Arc::new(WallClock::default());
    let recorder = Recorder::new(clock.clone(), Recorder::DEFAULT_BOUND);
    [
        Rig::probed(8192, NicConfig::default().sample_every, clock.clone(), recorder),
        Rig::probed(8192, 0, clock, Arc::new(NoProbe)),
    ]
}

/// Warm requests, as fast as the device takes them.
fn streams(bench: &mut Bench) {
    let mut rigs = pair();
    for rig in &rigs {
        rig.map(SOURCE, BUFFER, false);
        rig.map(TARGET, BUFFER, false);
    }
    for (length, name) in [(64 << 10, "64 KiB"), (4 << 10, "4 KiB"), (64, "64-byte")] {
        let burst = (BUFFER / length).min(BURST);
        let [recorded, alone] =
            rigs.each_mut().map(|rig| move |count: u64| stream(rig, count, burst, length));
        let (mut recorded, mut alone) = (recorded, alone);
        bench.compare(
            Comparison {
                name: &format!("stream of {name} RDMA WRITEs, warm, under the recorder"),
                baseline: "the same without it",
                target: Target::AtMost(1.03),
            },
            &mut recorded,
            &mut alone,
        );
    }
    let [recorded, alone] = rigs.each_mut().map(|rig| move |count: u64| single(rig, count));
    let (mut recorded, mut alone) = (recorded, alone);
    bench.compare(
        Comparison {
            name: "one 64-byte RDMA WRITE from post to completion, warm, under the recorder",
            baseline: "the same without it",
            target: Target::AtMost(1.03),
        },
        &mut recorded,
        &mut alone,
    );
}

fn stream(rig: &mut Rig, count: u64, burst: u64, length: u64) -> Duration {
    timed(|| {
        for _ in 0..count {
            rig.stream_warm((0..burst as usize).map(|index| index as u64 * length), length as u32);
        }
    })
}

fn single(rig: &mut Rig, count: u64) -> Duration {
    timed(|| (0..count).for_each(|_| rig.write_warm(SOURCE, TARGET, 64)))
}

/// Faults, with all stages recorded.
fn faults(bench: &mut Bench) {
    let mut rigs = pair();
    let frames = rigs.each_mut().map(warm);
    let [recorded, alone] = rigs.each_mut();
    bench.compare(
        Comparison {
            name: "I/O page fault on one thread, under the recorder",
            baseline: "the same without it",
            target: Target::None,
        },
        &mut |count| (0..count).map(|_| fault(recorded, frames[0])).sum(),
        &mut |count| (0..count).map(|_| fault(alone, frames[1])).sum(),
    );
}

/// Warms everything but the page. Returns the frame for the page.
fn warm(rig: &mut Rig) -> Gpa {
    rig.map(SOURCE, 4096, false);
    let frame = rig.machine.memory.frame().expect("a frame");
    rig.session.process.space.map(TARGET, frame, PageSize::Small, Rights::Write).expect("an empty page");
    rig.write_warm(SOURCE, TARGET, 64);
    frame
}
