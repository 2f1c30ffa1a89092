//! The round trip of an I/O page fault against a minor page fault of the processor.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use refault_bus::Gpa;
use refault_bus::pri::ResponseCode;
use refault_model::paging::{PageSize, Rights};
use refault_model::vtd::Answer;
use refault_tests::bench::{Bench, Comparison, Target};
use refault_tests::bench_rig::{Rig, SOURCE, TARGET};
use refault_tests::first_touch::first_touch;
use refault_tests::platform::PAGE_REQUEST_VECTOR;

fn main() -> ExitCode {
    let mut bench = Bench::from_arguments();
    let mut rig = Rig::new(8192);
    rig.map(SOURCE, 4096, false);
    let frame = rig.machine.memory.frame().expect("a frame");
    rig.session.process.space.map(TARGET, frame, PageSize::Small, Rights::Write).expect("an empty page");
    rig.write_warm(SOURCE, TARGET, 64);
    bench.compare(
        Comparison {
            name: "I/O page fault on one thread: miss, request, MSI, response, retry, copy of 64 bytes",
            baseline: "first touch of an anonymous page",
            target: Target::AtMost(1.0),
        },
        &mut |count| (0..count).map(|_| fault(&mut rig, frame)).sum(),
        &mut first_touch,
    );
    bench.finish()
}

/// One fault. Taking the page away beforehand is not counted.
fn fault(rig: &mut Rig, frame: Gpa) -> Duration {
    let process = rig.session.process.clone();
    process.take_page(TARGET).expect("a page");
    rig.post(SOURCE, TARGET, 64);
    let start = Instant::now();
    while rig.worker.poll() {}
    assert_eq!(rig.machine.interrupts.take(PAGE_REQUEST_VECTOR), 1);
    let handled = rig.machine.unit.service_page_requests(|request| {
        let mapped = process.space.map(request.page, frame, PageSize::Small, Rights::Write);
        Answer::Now(if mapped.is_ok() { ResponseCode::Success } else { ResponseCode::InvalidRequest })
    });
    assert_eq!(handled, Ok(1));
    while rig.worker.poll() {}
    let took = start.elapsed();
    rig.take_completion();
    took
}
