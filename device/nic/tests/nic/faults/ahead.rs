//! Pages that are asked for before they are reached.

use refault_abi::codes::WC_SUCCESS;
use refault_bus::pri::ResponseCode;
use refault_bus::probe::Stage;
use refault_nic::NicConfig;

use super::HEAP;
use crate::support::driver::*;
use crate::support::*;

#[test]
fn the_window_requests_the_pages_ahead_and_each_is_recorded() {
    let config = NicConfig { fault_window: 4, ..NicConfig::default() };
    let mut pair = Pair::on(Bench::new(config), PATIENT);
    let present = pair.map_page(HEAP + 0x2000, true);
    pair.bench.probe.take();
    pair.run(&pair.write(1, 0x5000, HEAP + 0x800, pair.process));
    let requests = pair.bench.iommu.take_requests();
    let pages: Vec<u64> = requests.iter().map(|request| request.page.0 - HEAP).collect();
    assert_eq!(pages, [0, 0x1000, 0x3000]);
    for request in requests.iter().rev() {
        pair.map_page(request.page.0, true);
        pair.bench.iommu.answer(request, ResponseCode::Success);
    }
    pair.bench.settle();
    for request in pair.bench.iommu.take_requests() {
        pair.map_page(request.page.0, true);
        pair.bench.iommu.answer(&request, ResponseCode::Success);
        pair.bench.settle();
    }
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert_eq!(pair.bench.bytes(present, 0x1000), pair.bench.bytes(pair.from + 0x1800, 0x1000));
    let stages = pair.bench.probe.stages();
    let count = |wanted| stages.iter().filter(|&&stage| stage == wanted).count();
    let counts = [Stage::Miss, Stage::PageRequest, Stage::Matched, Stage::Copied].map(count);
    assert!(counts[0] >= 5 && counts.iter().all(|&n| n == counts[0]), "{counts:?} {stages:?}");
}

#[test]
fn pages_asked_for_ahead_are_not_looked_up_again_at_every_answer() {
    const PAGES: u64 = 16;
    let config = NicConfig { fault_window: PAGES as u32, ..NicConfig::default() };
    let mut pair = Pair::on(Bench::new(config), PATIENT);
    let before = pair.bench.iommu.translations();
    pair.run(&pair.write(1, PAGES as u32 * 0x1000, HEAP, pair.process));
    let requests = pair.bench.iommu.take_requests();
    assert_eq!(requests.len() as u64, PAGES);
    for request in &requests {
        pair.map_page(request.page.0, true);
        pair.bench.iommu.answer(request, ResponseCode::Success);
        pair.bench.settle();
    }
    pair.cq_a.expect(&pair.bench, WC_SUCCESS);
    assert!(pair.bench.iommu.take_requests().is_empty());
    // The translations grow with the number of pages, not with its square.
    let translations = pair.bench.iommu.translations() - before;
    assert!(translations <= 5 * PAGES, "{translations}");
}
