//! One fault on a [`Rig`], whole and in parts.

use std::time::{Duration, Instant};

use refault_bus::Gpa;
use refault_bus::pri::ResponseCode;
use refault_model::Process;
use refault_model::paging::{PageSize, Rights};
use refault_model::vtd::{Answer, RemappingUnit};

use crate::bench_rig::{Rig, SOURCE, TARGET};
use crate::platform::PAGE_REQUEST_VECTOR;

/// One fault on this thread alone, from the doorbell's work to the completion. Returns its duration.
pub fn fault(rig: &mut Rig, frame: Gpa) -> Duration {
    begin(rig);
    let start = Instant::now();
    while rig.worker.poll() {}
    assert_eq!(rig.machine.interrupts.take(PAGE_REQUEST_VECTOR), 1);
    assert_eq!(serve(&rig.machine.unit, &rig.session.process, frame), 1);
    while rig.worker.poll() {}
    let took = start.elapsed();
    rig.take_completion();
    took
}

/// Takes the page away and posts a write to it.
pub fn begin(rig: &mut Rig) {
    rig.session.process.take_page(TARGET).expect("a page");
    rig.post(SOURCE, TARGET, 64);
}

/// Does the work of the page request thread. Returns the number of requests.
pub fn serve(unit: &RemappingUnit, process: &Process, frame: Gpa) -> usize {
    let handled = unit.service_page_requests(|request| {
        let mapped = process.space.map(request.page, frame, PageSize::Small, Rights::Write);
        Answer::Now(if mapped.is_ok() { ResponseCode::Success } else { ResponseCode::InvalidRequest })
    });
    handled.expect("the queue is served")
}
