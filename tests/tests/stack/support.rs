//! Shared by these tests.

use refault_abi::codes::{WC_SUCCESS, WcStatus};
use refault_abi::queue::Cqe;
use refault_bus::Iova;
use refault_bus::probe::Stage;
use refault_model::memory::FRAME;
use refault_model::paging::{PageSize, Rights};
use refault_tests::machine::{Machine, MachineSetup};
use refault_tests::session::Session;

/// Address of the source.
pub(crate) const SOURCE: Iova = Iova(0x7f00_0000_0000);
/// Where they go.
pub(crate) const TARGET: Iova = Iova(0x7f80_0000_0000);
/// Bytes of both areas.
pub(crate) const AREA: u64 = 256 * FRAME;

/// A machine and one process with a source area, filled and present, and a target area without a page.
pub(crate) fn ready(setup: MachineSetup) -> (Machine, Session) {
    let machine = Machine::new(setup);
    // The bring-up of the IOMMU has emptied the device's TLB, which is no part of what tests observe.
    machine.trace.take();
    let session = open(&machine, 1);
    (machine, session)
}

/// A process as [`ready`] has one.
pub(crate) fn open(machine: &Machine, pasid: u32) -> Session {
    let session = machine.open(pasid);
    session.process.map_area(SOURCE, AREA, Rights::Write, PageSize::Small);
    session.process.map_area(TARGET, AREA, Rights::Write, PageSize::Small);
    session.process.populate(SOURCE, AREA).unwrap();
    session
}

/// Fills the first `len` bytes of the source with a pattern that depends on `seed`.
pub(crate) fn fill_source(session: &Session, len: usize, seed: u64) -> Vec<u8> {
    let bytes = pattern(len, seed);
    session.process.write(SOURCE, &bytes).unwrap();
    bytes
}

/// Bytes that depend on the seed and on the offset.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(step).collect()
}

/// The bytes that the process reads at `at`.
pub(crate) fn bytes_at(session: &Session, at: Iova, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    session.process.read(at, &mut bytes).unwrap();
    bytes
}

/// Asserts that exactly these requests completed, in this order, with success.
#[track_caller]
pub(crate) fn assert_success(completions: &[Cqe], ids: impl IntoIterator<Item = u64>) {
    let expected: Vec<_> = ids.into_iter().map(|id| (id, WC_SUCCESS, 0)).collect();
    assert_eq!(outcomes(completions), expected);
}

/// Request, status and cause of each completion.
pub(crate) fn outcomes(completions: &[Cqe]) -> Vec<(u64, WcStatus, u32)> {
    completions.iter().map(|cqe| (cqe.wr_id, cqe.status, cqe.vendor_error)).collect()
}

/// Number of page requests by the NIC.
pub(crate) fn page_requests(machine: &Machine) -> usize {
    machine.trace.count(Stage::PageRequest)
}
