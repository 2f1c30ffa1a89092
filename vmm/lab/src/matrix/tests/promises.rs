//! Every cell against the promise of its policy.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use refault_abi::codes::{CAUSE_PAGE_REFUSED, CAUSE_REVOKED};
use refault_model::dax::Errno;

use crate::matrix::table::{self, word};
use crate::matrix::*;

/// The verdicts that the descriptions of the policies imply.
const PROMISED: &str = "
policy               | truncate | punch   | collapse | insert     | reflink    | cow-write | exchange   | allocate | clean      | exit    | unmount
pasid                | ok       | ok      | ok       | ok         | ok         | ok        | ok         | ok       | ok         | ok      | ok
odp                  | ok       | ok      | ok       | ok         | ok         | ok        | ok         | ok       | ok         | ok      | ok
file-key             | ok       | ok      | ok       | ok         | ok         | ok        | ok         | ok       | ok         | ok      | EBUSY
pin                  | CORRUPT  | CORRUPT | CORRUPT  | LOST       | CORRUPT    | LEAK      | CORRUPT    | ok       | LOST@CRASH | ok      | CORRUPT
prefault             | CORRUPT  | CORRUPT | CORRUPT  | LOST       | CORRUPT    | LEAK      | CORRUPT    | ok       | LOST@CRASH | ok      | CORRUPT
pin-banned           | no DMA   | no DMA  | no DMA   | no DMA     | no DMA     | no DMA    | no DMA     | no DMA   | no DMA     | no DMA  | no DMA
short-pin            | 5 ms     | 5 ms    | 5 ms     | 5 ms       | 5 ms       | 5 ms      | 5 ms       | ok       | ok         | ok      | 5 ms
short-pin-leaked     | FOREVER  | FOREVER | FOREVER  | FOREVER    | FOREVER    | FOREVER   | FOREVER    | ok       | ok         | FOREVER | FOREVER
lease                | 200 us   | 200 us  | 200 us   | 200 us     | 200 us     | 200 us    | 200 us     | ok       | ok         | ok      | revoked
lease-deaf           | rev 45 s | rev 45 s | rev 45 s | rev 45 s  | rev 45 s   | rev 45 s  | rev 45 s   | ok       | ok         | ok      | revoked
lease-killed         | kill 45 s | kill 45 s | kill 45 s | kill 45 s | kill 45 s | kill 45 s | kill 45 s | ok       | ok         | ok      | revoked
lease-truncate-fails | ETXTBSY  | ETXTBSY | ETXTBSY  | ETXTBSY    | ETXTBSY    | ETXTBSY   | ETXTBSY    | ok       | ok         | ok      | EBUSY
lease-until-unpinned | ETXTBSY  | ETXTBSY | ETXTBSY  | ETXTBSY    | ETXTBSY    | ETXTBSY   | ETXTBSY    | ok       | ok         | ok      | killed
sealed               | ETXTBSY  | ETXTBSY | ETXTBSY  | ETXTBSY    | ETXTBSY    | ETXTBSY   | ETXTBSY    | no DMA   | ok         | ok      | EBUSY
sealed-breakable     | revoked  | revoked | revoked  | revoked    | revoked    | revoked   | revoked    | no DMA   | ok         | ok      | EBUSY
map-direct           | ETXTBSY  | ETXTBSY | ETXTBSY  | ETXTBSY    | ETXTBSY    | ETXTBSY   | ETXTBSY    | no DMA   | ok         | ok      | CORRUPT
mpin                 | EBUSY    | EBUSY   | EBUSY    | EBUSY      | EBUSY      | EBUSY     | EBUSY      | ok       | ok         | ok      | EBUSY
mpin-wait            | 5 ms     | 5 ms    | 5 ms     | 5 ms       | 5 ms       | 5 ms      | 5 ms       | ok       | ok         | ok      | EBUSY
never-moves          | ETXTBSY  | ETXTBSY | ETXTBSY  | EOPNOTSUPP | EOPNOTSUPP | ok        | EOPNOTSUPP | ok       | ok         | ok      | EBUSY
";

fn cells() -> &'static BTreeMap<(PolicyRow, FileOperation), Cell> {
    static CELLS: OnceLock<BTreeMap<(PolicyRow, FileOperation), Cell>> = OnceLock::new();
    CELLS.get_or_init(|| {
        let all =
            PolicyRow::ALL.into_iter().flat_map(|row| FileOperation::ALL.map(|operation| (row, operation)));
        let result = |(row, operation)| {
            let cell =
                run(row, operation).unwrap_or_else(|error| panic!("{row:?}, {operation:?}: {error:#}"));
            ((row, operation), cell)
        };
        all.map(result).collect()
    })
}

fn cell(row: PolicyRow, operation: FileOperation) -> &'static Cell {
    &cells()[&(row, operation)]
}

#[test]
fn every_cell_is_as_its_policy_promises() {
    let mut lines = PROMISED.trim().lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let columns = lines.next().unwrap();
    assert_eq!(columns[1..], FileOperation::ALL.map(FileOperation::name), "no column is skipped");
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for line in lines {
        let row = PolicyRow::ALL.into_iter().find(|row| row.name() == line[0]).unwrap();
        rows.push(row);
        for (operation, promised) in FileOperation::ALL.into_iter().zip(&line[1..]) {
            let cell = cell(row, operation);
            if word(cell) != *promised {
                wrong.push(format!("promised {promised}: {}", table::line(cell)));
            }
        }
    }
    assert_eq!(rows, PolicyRow::ALL, "no row is skipped");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_manual_shows_the_table_as_it_is_printed() {
    let all: Vec<_> = PolicyRow::ALL
        .into_iter()
        .flat_map(|row| FileOperation::ALL.map(|operation| cell(row, operation).clone()))
        .collect();
    let grid = table::grid(&all);
    let manual = include_str!("../../../../../docs/policies.md");
    assert!(manual.contains(&grid), "docs/policies.md has another table than\n{grid}");
    assert!(grid.lines().all(|line| line.len() <= 140), "it fits a terminal of 140 columns");
    for row in PolicyRow::ALL {
        assert!(manual.contains(&format!("`{}`", row.name())), "{} is not explained", row.name());
    }
}

#[test]
fn the_files_have_every_cell() {
    let all: Vec<_> = cells().values().cloned().collect();
    let mut csv = Vec::new();
    table::csv(&all, &mut csv).unwrap();
    let csv = String::from_utf8(csv).unwrap();
    assert_eq!(csv.lines().count(), 1 + all.len());
    // Reasons contain commas, and are quoted then.
    let fields = |line: &str| line.split('"').step_by(2).map(|part| part.matches(',').count()).sum::<usize>();
    assert!(csv.lines().all(|line| fields(line) == 24), "{csv}");
    assert!(csv.contains("\nodp,punch,ok,ok,ok,ok,0,"));
    let page = html::page(&all);
    assert_eq!(page.matches("<td class=").count(), all.len());
    assert!(!page.contains("http"), "it needs nothing else");
}

#[test]
fn nothing_is_wrong_with_refault_itself() {
    let broken: Vec<_> = cells().values().filter(|cell| !cell.broken.is_empty()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn a_cell_is_deterministic() {
    for (row, operation) in
        [(PolicyRow::Odp, FileOperation::Collapse), (PolicyRow::LeaseKilled, FileOperation::SharedWrite)]
    {
        assert_eq!(&run(row, operation).unwrap(), cell(row, operation));
    }
}

#[test]
fn a_faulting_device_continues_wherever_the_file_still_has_pages() {
    for row in PolicyRow::ALL.into_iter().filter(|row| row.faults()) {
        let shorter = cell(row, FileOperation::Truncate);
        // Three requests for each page; 6 pages are left, 6 of those registered are beyond the end.
        assert_eq!(
            (shorter.after.succeeded, shorter.after.failed.clone()),
            (18, [(CAUSE_PAGE_REFUSED, 18)].into())
        );
        for operation in [
            FileOperation::Punch,
            FileOperation::Collapse,
            FileOperation::Insert,
            FileOperation::Reflink,
            FileOperation::Exchange,
            FileOperation::Clean,
        ] {
            let cell = cell(row, operation);
            assert_eq!((cell.after.succeeded, cell.after.failures(), cell.waited_ns), (36, 0, 0), "{cell:?}");
            assert_eq!((cell.during.succeeded, cell.signals), (4, 0), "{cell:?}");
            assert!(cell.faults > 0 && cell.unnoticed == 0, "{cell:?}");
        }
        let hole = cell(row, FileOperation::Allocate);
        assert_eq!((hole.after.succeeded, hole.after.failures()), (42, 0), "{hole:?}");
    }
    let gone = cell(PolicyRow::Pasid, FileOperation::Unmount);
    assert_eq!((gone.after.succeeded, gone.after.failed.clone()), (0, [(CAUSE_PAGE_REFUSED, 36)].into()));
    assert!(
        cell(PolicyRow::FileKey, FileOperation::Unmount).after.succeeded == 36,
        "the key needs no mapping"
    );
}

#[test]
fn an_unprotected_pin_corrupts_leaks_and_loses_silently() {
    for row in [PolicyRow::Pin, PolicyRow::Prefault] {
        for operation in [FileOperation::Truncate, FileOperation::Punch] {
            let cell = cell(row, operation);
            // A write is 3 KiB of a page. By then, 6 pages beyond the end or 4 in the hole belong to another file; one
            // write to the hole was already in flight.
            let (pages, early) = if operation == FileOperation::Truncate { (6, 0) } else { (4, 1) };
            assert_eq!(cell.landed, (pages + early) * 3072, "{cell:?}");
            assert!(cell.leaked >= pages * 4096 && cell.lost >= pages * 3072, "{cell:?}");
            assert_eq!((cell.after.failures(), cell.outcome), (0, Ending::Done), "no error is visible");
        }
        let shared = cell(row, FileOperation::SharedWrite);
        // By then two pages belong to another file, and one of them was in flight.
        assert_eq!((shared.leaked, shared.landed), (3 * 4096, 0));
        assert_eq!(cell(row, FileOperation::Reflink).leaked, 0);
    }
}

#[test]
fn writes_after_cleaning_are_lost_in_a_crash_unless_the_program_flushes() {
    let lost = cell(PolicyRow::Prefault, FileOperation::Clean);
    assert_eq!((lost.unnoticed, lost.lost_in_crash), (12, 12 * 3072));
    for row in [PolicyRow::Sealed, PolicyRow::SealedBreakable, PolicyRow::MapDirect] {
        let flushed = cell(row, FileOperation::Clean);
        assert_eq!((flushed.unnoticed, flushed.lost_in_crash), (12, 0), "{flushed:?}");
    }
    for row in [
        PolicyRow::Pasid,
        PolicyRow::Odp,
        PolicyRow::FileKey,
        PolicyRow::ShortPin,
        PolicyRow::Lease,
        PolicyRow::Mpin,
        PolicyRow::NeverMoves,
    ] {
        let heard = cell(row, FileOperation::Clean);
        assert_eq!((heard.unnoticed, heard.lost_in_crash), (0, 0), "{heard:?}");
    }
}

#[test]
fn an_operation_waits_exactly_until_its_obstacle_is_gone() {
    assert_eq!(cell(PolicyRow::ShortPin, FileOperation::Truncate).waited_ns, IO_NS);
    assert_eq!(cell(PolicyRow::Lease, FileOperation::Truncate).waited_ns, ANSWER_NS);
    assert_eq!(cell(PolicyRow::LeaseDeaf, FileOperation::Truncate).waited_ns, BREAK_TIME_NS);
    let leaked = cell(PolicyRow::ShortPinLeaked, FileOperation::Punch);
    assert!(matches!(leaked.outcome, Ending::Forever("a page to be unpinned")), "{leaked:?}");
}

#[test]
fn a_responsive_holder_is_signalled_once_and_continues() {
    for operation in
        [FileOperation::Punch, FileOperation::Reflink, FileOperation::SharedWrite, FileOperation::Exchange]
    {
        let cell = cell(PolicyRow::Lease, operation);
        assert_eq!((cell.signals, cell.again, cell.killed), (1, Some(Ending::Done), false), "{cell:?}");
        assert!(cell.after.succeeded >= 12 && cell.after.failures() == 0, "{cell:?}");
    }
    let deaf = cell(PolicyRow::LeaseDeaf, FileOperation::SharedWrite);
    assert_eq!(deaf.after.failed, [(CAUSE_REVOKED, 12)].into(), "any write can revoke");
    let killed = cell(PolicyRow::LeaseKilled, FileOperation::Punch);
    assert_eq!((killed.signals, killed.killed, killed.after.succeeded), (2, true, 0));
}

#[test]
fn refusals_say_why() {
    let expected = [
        (PolicyRow::PinBanned, FileOperation::Clean, true, Errno::EOPNOTSUPP),
        (PolicyRow::Sealed, FileOperation::Allocate, true, Errno::EFAULT),
        (PolicyRow::MapDirect, FileOperation::Allocate, true, Errno::EFAULT),
        (PolicyRow::Sealed, FileOperation::Allocate, false, Errno::ETXTBSY),
        (PolicyRow::MapDirect, FileOperation::Allocate, false, Errno::ETXTBSY),
        (PolicyRow::NeverMoves, FileOperation::Punch, false, Errno::ETXTBSY),
        (PolicyRow::Mpin, FileOperation::Unmount, false, Errno::EBUSY),
    ];
    for (row, operation, registering, errno) in expected {
        let cell = cell(row, operation);
        let ending = if registering { cell.registration } else { cell.outcome };
        assert!(
            matches!(ending, Ending::Refused(found, reason) if found == errno && !reason.is_empty()),
            "{cell:?}"
        );
    }
    let setup = cell(PolicyRow::NeverMoves, FileOperation::SharedWrite).setup;
    assert!(matches!(setup, Ending::Refused(Errno::EOPNOTSUPP, _)), "there is nothing to share");
}
