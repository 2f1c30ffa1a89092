use std::os::unix::fs::FileExt;
use std::sync::TryLockError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;

const PAGE: u64 = 4096;
/// Numbers of the two functions.
const UNIT: usize = 0;
const NIC: usize = 1;

/// A named file of `pages` pages, each filled with its number, counted from `first`.
fn named(first: u8, pages: u8) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fill(file.as_file(), first, pages);
    file
}

fn memfd(first: u8, pages: u8) -> File {
    let file = File::from(rustix::fs::memfd_create("ram", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    fill(&file, first, pages);
    file
}

fn fill(file: &File, first: u8, pages: u8) {
    for page in 0..pages {
        file.write_all_at(&[first + page; PAGE as usize], u64::from(page) * PAGE).unwrap();
    }
}

fn ram() -> ClientRam {
    ClientRam::new(true)
}

fn pages(first: u64, count: u64) -> DmaMap {
    DmaMap { address: first * PAGE, size: count * PAGE, offset: 0, readable: true, writable: true }
}

fn gone(first: u64, count: u64) -> DmaUnmap {
    DmaUnmap { address: first * PAGE, size: count * PAGE, all: false }
}

fn give(ram: &ClientRam, owner: usize, map: DmaMap, file: &File) -> Result<(), RequestError> {
    ram.map(owner, map, Some(file.try_clone().unwrap()))
}

/// The first byte of a page, if it is memory.
fn byte(ram: &ClientRam, page: u64) -> Option<u8> {
    let mut byte = [0];
    ram.read(Gpa(page * PAGE), &mut byte).ok().map(|()| byte[0])
}

#[test]
fn memory_is_reachable_from_the_first_map_to_the_first_unmap() {
    let (ram, file) = (ram(), memfd(1, 4));
    assert_eq!(byte(&ram, 0), None);
    give(&ram, NIC, pages(0, 4), &file).unwrap();
    assert_eq!(byte(&ram, 3), Some(4));
    give(&ram, UNIT, pages(0, 4), &file).unwrap();
    assert_eq!(byte(&ram, 3), Some(4));
    ram.unmap(UNIT, gone(0, 4)).unwrap();
    assert_eq!(byte(&ram, 3), None, "though the NIC has not unmapped it yet");
    ram.unmap(NIC, gone(0, 4)).unwrap();
    assert_eq!(byte(&ram, 3), None);
}

#[test]
fn device_writes_reach_the_clients_file() {
    let (ram, file) = (ram(), memfd(0, 4));
    give(&ram, NIC, DmaMap { offset: 2 * PAGE, ..pages(16, 2) }, &file).unwrap();
    ram.write(Gpa(17 * PAGE + 5), b"refault").unwrap();
    let mut back = [0; 7];
    file.read_exact_at(&mut back, 3 * PAGE + 5).unwrap();
    assert_eq!(&back, b"refault");
}

#[test]
fn a_range_that_overlaps_another_is_refused() {
    let (ram, file) = (ram(), memfd(1, 8));
    give(&ram, NIC, pages(4, 4), &file).unwrap();
    give(&ram, NIC, pages(12, 2), &file).unwrap();
    for (first, count) in [(4, 4), (4, 1), (3, 2), (7, 2), (5, 1), (0, 8), (7, 6), (13, 1)] {
        assert_eq!(give(&ram, NIC, pages(first, count), &file), Err(RequestError::Exists), "{first}+{count}");
        assert_eq!(ram.map(NIC, pages(first, count), None), Err(RequestError::Exists), "nor without a file");
    }
    give(&ram, NIC, pages(8, 4), &file).unwrap();
    give(&ram, NIC, pages(0, 4), &file).unwrap();
    assert_eq!((byte(&ram, 4), byte(&ram, 8), byte(&ram, 12)), (Some(1), Some(1), Some(1)));
}

#[test]
fn two_functions_cannot_have_different_memory_at_one_address() {
    let (ram, one, other) = (ram(), memfd(1, 4), memfd(9, 4));
    give(&ram, NIC, pages(0, 4), &one).unwrap();
    assert_eq!(give(&ram, UNIT, pages(0, 4), &other), Err(RequestError::Exists));
    assert_eq!(give(&ram, UNIT, pages(2, 2), &one), Err(RequestError::Exists));
    assert_eq!(byte(&ram, 0), Some(1));
}

#[test]
fn an_unmap_names_whole_ranges() {
    let (ram, file) = (ram(), memfd(1, 8));
    give(&ram, NIC, pages(4, 4), &file).unwrap();
    for (first, count) in [(4, 3), (5, 3), (5, 1), (0, 5), (7, 9)] {
        assert_eq!(ram.unmap(NIC, gone(first, count)), Err(RequestError::Invalid), "{first}+{count}");
    }
    for (first, count) in [(0, 4), (8, 4)] {
        assert_eq!(ram.unmap(NIC, gone(first, count)), Err(RequestError::Absent), "{first}+{count}");
    }
    assert_eq!(ram.unmap(UNIT, gone(4, 4)), Err(RequestError::Absent), "it is not the unit's");
    assert_eq!(byte(&ram, 7), Some(4), "a refusal changes nothing");
    give(&ram, NIC, pages(8, 4), &file).unwrap();
    ram.unmap(NIC, gone(0, 16)).unwrap();
    assert_eq!((byte(&ram, 4), byte(&ram, 8)), (None, None), "several at once");
}

#[test]
fn everything_can_be_unmapped_at_once_even_without_ranges() {
    let (ram, file) = (ram(), memfd(1, 8));
    let all = DmaUnmap { address: 0, size: 0, all: true };
    ram.unmap(NIC, all).unwrap();
    give(&ram, NIC, pages(0, 2), &file).unwrap();
    give(&ram, NIC, pages(1 << 40, 2), &file).unwrap();
    give(&ram, UNIT, pages(6, 2), &file).unwrap();
    ram.unmap(NIC, all).unwrap();
    assert_eq!((byte(&ram, 0), byte(&ram, 1 << 40), byte(&ram, 6)), (None, None, Some(1)));
    ram.forget(UNIT);
    assert_eq!(byte(&ram, 6), None);
}

#[test]
fn a_file_that_is_too_short_is_refused() {
    let (ram, file) = (ram(), memfd(1, 4));
    let part = |offset, size| DmaMap { offset, size, ..pages(0, 1) };
    for (offset, size) in [(0, 5 * PAGE), (PAGE, 4 * PAGE), (4 * PAGE, 1), (0, 4 * PAGE + 1), (1 << 62, PAGE)]
    {
        assert_eq!(
            give(&ram, NIC, part(offset, size), &file),
            Err(RequestError::Invalid),
            "{offset:#x}+{size:#x}"
        );
    }
    give(&ram, NIC, part(3 * PAGE, PAGE), &file).unwrap();
    assert_eq!(byte(&ram, 0), Some(4));
}

#[test]
fn only_regular_files_can_be_memory() {
    let ram = ram();
    let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
    let folder = File::open(std::env::temp_dir()).unwrap();
    let zero = File::options().read(true).write(true).open("/dev/zero").unwrap();
    for file in [File::from(std::os::fd::OwnedFd::from(socket)), folder, zero] {
        assert_eq!(ram.map(NIC, pages(0, 1), Some(file)), Err(RequestError::Invalid));
    }
    let unwritable = File::open(named(1, 1).path()).unwrap();
    assert_eq!(
        ram.map(NIC, pages(0, 1), Some(unwritable)),
        Err(RequestError::Invalid),
        "it is to be written"
    );
    give(&ram, NIC, pages(0, 1), &memfd(1, 1)).unwrap();
}

/// Firmware switches its shadow RAM between read-only and writable: the same addresses, split differently, several times.
/// Each function is notified separately.
#[test]
fn memory_is_remapped_while_each_function_is_notified_separately() {
    let unit_first = [UNIT, NIC, UNIT, NIC];
    for order in [unit_first, [NIC, UNIT, NIC, UNIT], [UNIT, UNIT, NIC, NIC], [UNIT, NIC, NIC, UNIT]] {
        let (ram, file) = (ram(), memfd(1, 8));
        let whole = pages(0, 8);
        let low = pages(0, 4);
        let high = DmaMap { offset: 4 * PAGE, writable: false, ..pages(4, 4) };
        for owner in [UNIT, NIC] {
            give(&ram, owner, whole, &file).unwrap();
        }
        for _ in 0..3 {
            // Into two pieces: each function unmaps first, then maps.
            let mut announced = [0; 2];
            for owner in order {
                announced[owner] += 1;
                if announced[owner] == 1 {
                    ram.unmap(owner, gone(0, 8)).unwrap();
                    continue;
                }
                give(&ram, owner, low, &file).unwrap();
                give(&ram, owner, high, &file).unwrap();
                assert_eq!((byte(&ram, 0), byte(&ram, 7)), (Some(1), Some(8)), "{order:?}");
            }
            assert_eq!((byte(&ram, 0), byte(&ram, 7)), (Some(1), Some(8)), "{order:?}");
            // And back.
            let mut announced = [0; 2];
            for owner in order {
                announced[owner] += 1;
                if announced[owner] == 1 {
                    ram.unmap(owner, gone(0, 4)).unwrap();
                    ram.unmap(owner, gone(4, 4)).unwrap();
                    continue;
                }
                give(&ram, owner, whole, &file).unwrap();
            }
            assert_eq!((byte(&ram, 0), byte(&ram, 7)), (Some(1), Some(8)), "{order:?}");
        }
    }
}

#[test]
fn remapped_memory_survives_a_late_unmap_of_the_old_range() {
    let (ram, file) = (ram(), memfd(1, 4));
    give(&ram, UNIT, pages(0, 4), &file).unwrap();
    give(&ram, NIC, pages(0, 4), &file).unwrap();
    ram.unmap(UNIT, gone(0, 4)).unwrap();
    give(&ram, UNIT, pages(0, 4), &file).unwrap();
    assert_eq!(byte(&ram, 0), Some(1));
    ram.unmap(NIC, gone(0, 4)).unwrap();
    assert_eq!(byte(&ram, 0), Some(1), "the NIC lost the range from before");
    give(&ram, NIC, pages(0, 4), &file).unwrap();
    ram.unmap(NIC, gone(0, 4)).unwrap();
    assert_eq!(byte(&ram, 0), None, "now it lost this one");
}

#[test]
fn a_read_only_range_never_changes_its_file() {
    let (ram, file) = (ram(), named(7, 2));
    let map = DmaMap { writable: false, ..pages(0, 2) };
    give(&ram, NIC, map, &File::open(file.path()).unwrap()).unwrap();
    assert_eq!(byte(&ram, 1), Some(8));
    let _ = ram.write(Gpa(PAGE), b"refault");
    assert_eq!(ram.persistent_region(Gpa(PAGE), 1), None);
    drop(ram);
    assert_eq!(std::fs::read(file.path()).unwrap()[PAGE as usize..], [8; PAGE as usize]);
}

#[test]
fn memory_without_a_file_is_known_but_not_reachable() {
    let ram = ram();
    ram.map(NIC, DmaMap { writable: false, ..pages(0xfffc0, 64) }, None).unwrap();
    assert_eq!(byte(&ram, 0xfffc0), None);
    assert_eq!(ram.map(NIC, pages(0xfffc0, 1), None), Err(RequestError::Exists));
    ram.unmap(NIC, gone(0xfffc0, 64)).unwrap();
}

#[test]
fn a_function_has_a_limited_number_of_ranges() {
    let ram = ram();
    for page in 0..MAPS_MAX as u64 {
        ram.map(NIC, pages(2 * page, 1), None).unwrap();
    }
    assert_eq!(ram.map(NIC, pages(1, 1), None), Err(RequestError::Full));
    ram.map(UNIT, pages(1, 1), None).unwrap();
    ram.unmap(NIC, gone(0, 1)).unwrap();
    ram.map(NIC, pages(1, 1), None).unwrap();
}

#[test]
fn only_named_files_survive_the_machine() {
    let (ram, disk, lost) = (ram(), named(1, 2), memfd(1, 2));
    let nameless = tempfile::tempfile().unwrap();
    fill(&nameless, 1, 2);
    give(&ram, NIC, pages(0, 2), &lost).unwrap();
    give(&ram, NIC, pages(2, 2), disk.as_file()).unwrap();
    give(&ram, NIC, pages(4, 2), &nameless).unwrap();
    assert!(ram.has_persistent());
    let disk_at = |page| GpaRange { base: Gpa(page * PAGE), len: 2 * PAGE };
    assert_eq!(ram.persistent_region(Gpa(2 * PAGE), 2 * PAGE), Some(disk_at(2)));
    assert_eq!(ram.persistent_region(Gpa(0), 1), None, "a memfd is gone with QEMU");
    assert_eq!(ram.persistent_region(Gpa(4 * PAGE), 1), None, "and so is a file that was unlinked");
    assert_eq!(ram.persistent_region(Gpa(2 * PAGE), 2 * PAGE + 1), None);
    assert_eq!(ram.persistent_region(Gpa(6 * PAGE), 1), None);
    let word = |page| GpaRange { base: Gpa(page * PAGE), len: 8 };
    ram.persist(&[word(2), word(3)]).unwrap();
    for page in [0, 4, 6] {
        let refused = ram.persist(&[word(2), word(page)]);
        assert!(matches!(refused, Err(PersistError::NotPersistent(_))), "page {page}");
    }
    ram.unmap(NIC, gone(0, 2)).unwrap();
    give(&ram, NIC, pages(0, 2), disk.as_file()).unwrap();
    assert_eq!(ram.persistent_region(Gpa(0), PAGE), Some(disk_at(0)), "what was there before does not count");
}

/// The reader holds the lock until the unmap is seen waiting for it: a waiting writer makes the lock refuse another reader.
#[test]
fn an_unmap_waits_for_an_access_in_flight() {
    let (ram, file) = (ram(), memfd(1, 4));
    give(&ram, NIC, pages(0, 4), &file).unwrap();
    let (read, unmapped) = (AtomicBool::new(false), AtomicBool::new(false));
    let (begun, begins) = mpsc::channel();
    let (let_go, gate) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let (ram, read, unmapped) = (&ram, &read, &unmapped);
        scope.spawn(move || {
            ram.access(|memory| {
                begun.send(()).unwrap();
                gate.recv().unwrap();
                let mut bytes = [0; 4 * PAGE as usize];
                memory.read(Gpa(0), &mut bytes).unwrap();
                assert_eq!((bytes[0], bytes[3 * PAGE as usize]), (1, 4), "the memory is still there");
                read.store(true, Ordering::SeqCst);
            });
        });
        begins.recv().unwrap();
        scope.spawn(move || {
            ram.unmap(NIC, gone(0, 4)).unwrap();
            unmapped.store(true, Ordering::SeqCst);
            assert!(read.load(Ordering::SeqCst), "the unmap did not wait");
        });
        let begin = Instant::now();
        while !matches!(ram.reachable.try_read(), Err(TryLockError::WouldBlock)) {
            assert!(!unmapped.load(Ordering::SeqCst), "the unmap did not wait");
            assert!(begin.elapsed() < Duration::from_secs(20), "the unmap never came");
            std::thread::yield_now();
        }
        assert!(!unmapped.load(Ordering::SeqCst), "the unmap did not wait");
        let_go.send(()).unwrap();
    });
    assert_eq!(byte(&ram, 0), None);
}

#[test]
fn a_file_truncated_by_its_client_is_named_when_the_process_ends() {
    const CHILD: &str = "REFAULT_TEST_TRUNCATED";
    if std::env::var_os(CHILD).is_some() {
        let (ram, file) = (ram(), named(1, 2));
        give(&ram, NIC, pages(0, 2), file.as_file()).unwrap();
        println!("file {}", file.path().display());
        file.as_file().set_len(PAGE).unwrap();
        byte(&ram, 1);
        return;
    }
    let mut ourselves = std::process::Command::new(std::env::current_exe().unwrap());
    ourselves.arg("--exact").arg(std::thread::current().name().unwrap()).arg("--nocapture");
    let output = ourselves.env(CHILD, "1").output().unwrap();
    let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(125), "{said}");
    let path = out.lines().find_map(|line| line.split_once("file ")).expect("a path").1;
    assert!(said.contains(&format!("{path} was truncated")), "{said}");
    let _ = std::fs::remove_file(path);
}
