//! Every cell against what its policy promises.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use refault_abi::codes::*;
use refault_model::dax::Errno;

use crate::matrix::table::{self, word};
use crate::matrix::*;

/// The verdicts, as the policies' descriptions have them.
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

fn cells() -> &'static BTreeMap<(Row, Operation), Cell> {
    static CELLS: OnceLock<BTreeMap<(Row, Operation), Cell>> = OnceLock::new();
    CELLS.get_or_init(|| {
        let all = Row::ALL.into_iter().flat_map(|row| Operation::ALL.map(|operation| (row, operation)));
        let play = |(row, operation)| {
            let cell =
                run(row, operation).unwrap_or_else(|error| panic!("{row:?}, {operation:?}: {error:#}"));
            ((row, operation), cell)
        };
        all.map(play).collect()
    })
}

fn cell(row: Row, operation: Operation) -> &'static Cell {
    &cells()[&(row, operation)]
}

#[test]
fn every_cell_is_as_its_policy_promises() {
    let mut lines = PROMISED.trim().lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let columns = lines.next().unwrap();
    assert_eq!(columns[1..], Operation::ALL.map(Operation::name), "no column is skipped");
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for line in lines {
        let row = Row::ALL.into_iter().find(|row| row.name() == line[0]).unwrap();
        rows.push(row);
        for (operation, promised) in Operation::ALL.into_iter().zip(&line[1..]) {
            let cell = cell(row, operation);
            if word(cell) != *promised {
                wrong.push(format!("promised {promised}: {}", table::line(cell)));
            }
        }
    }
    assert_eq!(rows, Row::ALL, "no row is skipped");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_manual_shows_the_table_as_it_is_printed() {
    let all: Vec<_> = Row::ALL
        .into_iter()
        .flat_map(|row| Operation::ALL.map(|operation| cell(row, operation).clone()))
        .collect();
    let grid = table::grid(&all);
    let manual = include_str!("../../../../../docs/policies.md");
    assert!(manual.contains(&grid), "docs/policies.md has another table than\n{grid}");
    assert!(grid.lines().all(|line| line.len() <= 140), "it fits a terminal of 140 columns");
    for row in Row::ALL {
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
    // Reasons have commas in them, and then quotes around them.
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
fn a_cell_comes_out_the_same_every_time() {
    for (row, operation) in [(Row::Odp, Operation::Collapse), (Row::LeaseKilled, Operation::SharedWrite)] {
        assert_eq!(&run(row, operation).unwrap(), cell(row, operation));
    }
}

#[test]
fn a_device_that_faults_goes_on_wherever_the_file_still_has_pages() {
    for row in Row::ALL.into_iter().filter(|row| row.faults()) {
        let shorter = cell(row, Operation::Truncate);
        // Three requests for each page; 6 pages are left, 6 of those registered are beyond the end.
        assert_eq!(
            (shorter.after.succeeded, shorter.after.failed.clone()),
            (18, [(CAUSE_PAGE_REFUSED, 18)].into())
        );
        for operation in [
            Operation::Punch,
            Operation::Collapse,
            Operation::Insert,
            Operation::Reflink,
            Operation::Exchange,
            Operation::Clean,
        ] {
            let cell = cell(row, operation);
            assert_eq!((cell.after.succeeded, cell.after.failures(), cell.waited_ns), (36, 0, 0), "{cell:?}");
            assert_eq!((cell.during.succeeded, cell.signals), (4, 0), "{cell:?}");
            assert!(cell.faults > 0 && cell.unnoticed == 0, "{cell:?}");
        }
        let hole = cell(row, Operation::Allocate);
        assert_eq!((hole.after.succeeded, hole.after.failures()), (42, 0), "{hole:?}");
    }
    let gone = cell(Row::Pasid, Operation::Unmount);
    assert_eq!((gone.after.succeeded, gone.after.failed.clone()), (0, [(CAUSE_PAGE_REFUSED, 36)].into()));
    assert!(cell(Row::FileKey, Operation::Unmount).after.succeeded == 36, "the key needs no mapping");
}

#[test]
fn the_original_sin_corrupts_leaks_and_loses_and_nobody_is_told() {
    for row in [Row::Pin, Row::Prefault] {
        for operation in [Operation::Truncate, Operation::Punch] {
            let cell = cell(row, operation);
            // A write is 3 KiB of a page: 6 pages behind the end, or 4 in the hole, are another file's by then. Into the
            // hole one write was in flight, and looked at, before the others.
            let (pages, early) = if operation == Operation::Truncate { (6, 0) } else { (4, 1) };
            assert_eq!(cell.landed, (pages + early) * 3072, "{cell:?}");
            assert!(cell.leaked >= pages * 4096 && cell.lost >= pages * 3072, "{cell:?}");
            assert_eq!((cell.after.failures(), cell.outcome), (0, Ending::Done), "all seems well");
        }
        let shared = cell(row, Operation::SharedWrite);
        // Two pages are another file's by then, and one of them was in flight.
        assert_eq!((shared.leaked, shared.landed), (3 * 4096, 0));
        assert_eq!(cell(row, Operation::Reflink).leaked, 0);
    }
}

#[test]
fn who_writes_behind_a_cleaned_page_loses_it_in_a_crash_unless_he_flushes_himself() {
    let lost = cell(Row::Prefault, Operation::Clean);
    assert_eq!((lost.unnoticed, lost.lost_in_crash), (12, 12 * 3072));
    for row in [Row::Sealed, Row::SealedBreakable, Row::MapDirect] {
        let flushed = cell(row, Operation::Clean);
        assert_eq!((flushed.unnoticed, flushed.lost_in_crash), (12, 0), "{flushed:?}");
    }
    for row in [Row::Pasid, Row::Odp, Row::FileKey, Row::ShortPin, Row::Lease, Row::Mpin, Row::NeverMoves] {
        let heard = cell(row, Operation::Clean);
        assert_eq!((heard.unnoticed, heard.lost_in_crash), (0, 0), "{heard:?}");
    }
}

#[test]
fn waits_are_as_long_as_what_is_waited_for() {
    assert_eq!(cell(Row::ShortPin, Operation::Truncate).waited_ns, IO_NS);
    assert_eq!(cell(Row::Lease, Operation::Truncate).waited_ns, ANSWER_NS);
    assert_eq!(cell(Row::LeaseDeaf, Operation::Truncate).waited_ns, BREAK_TIME_NS);
    let leaked = cell(Row::ShortPinLeaked, Operation::Punch);
    assert!(matches!(leaked.outcome, Ending::Forever("a page to be unpinned")), "{leaked:?}");
}

#[test]
fn a_holder_that_answers_is_asked_once_and_goes_on_afterwards() {
    for operation in [Operation::Punch, Operation::Reflink, Operation::SharedWrite, Operation::Exchange] {
        let cell = cell(Row::Lease, operation);
        assert_eq!((cell.signals, cell.again, cell.killed), (1, Some(Ending::Done), false), "{cell:?}");
        assert!(cell.after.succeeded >= 12 && cell.after.failures() == 0, "{cell:?}");
    }
    let deaf = cell(Row::LeaseDeaf, Operation::SharedWrite);
    assert_eq!(deaf.after.failed, [(CAUSE_REVOKED, 12)].into(), "any write can revoke");
    let killed = cell(Row::LeaseKilled, Operation::Punch);
    assert_eq!((killed.signals, killed.killed, killed.after.succeeded), (2, true, 0));
}

#[test]
fn refusals_say_why() {
    let expected = [
        (Row::PinBanned, Operation::Clean, true, Errno::EOPNOTSUPP),
        (Row::Sealed, Operation::Allocate, true, Errno::EFAULT),
        (Row::MapDirect, Operation::Allocate, true, Errno::EFAULT),
        (Row::Sealed, Operation::Allocate, false, Errno::ETXTBSY),
        (Row::MapDirect, Operation::Allocate, false, Errno::ETXTBSY),
        (Row::NeverMoves, Operation::Punch, false, Errno::ETXTBSY),
        (Row::Mpin, Operation::Unmount, false, Errno::EBUSY),
    ];
    for (row, operation, registering, errno) in expected {
        let cell = cell(row, operation);
        let ending = if registering { cell.registration } else { cell.outcome };
        assert!(
            matches!(ending, Ending::Refused(found, reason) if found == errno && !reason.is_empty()),
            "{cell:?}"
        );
    }
    let setup = cell(Row::NeverMoves, Operation::SharedWrite).setup;
    assert!(matches!(setup, Ending::Refused(Errno::EOPNOTSUPP, _)), "there is nothing to share");
}
