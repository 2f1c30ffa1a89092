//! Tests of the filesystem's guarantees, and for leaks of blocks.

#![allow(clippy::cast_possible_truncation, reason = "small page numbers as bytes")]

use std::sync::{Arc, Mutex};

use refault_bus::dma::GuestRam;
use refault_bus::{Gpa, Iova};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::dax::*;
use crate::memory::{FRAME, FRAME_LEN};
use crate::paging::Rights;
use crate::{GuestMemory, ModelError, Process};

const RAM: u64 = 0x40_0000;
/// 64 blocks.
const PMEM: std::ops::Range<u64> = RAM..RAM + 0x4_0000;
const AT: Iova = Iova(0x7f00_0000_0000);

pub(crate) fn filesystem() -> (Arc<GuestMemory>, Arc<DaxFs>) {
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), PMEM.end as usize)]).unwrap();
    let memory = GuestMemory::new(Arc::new(GuestRam::new(Arc::new(ram))), std::iter::once(FRAME..RAM));
    let fs = DaxFs::new(&memory, &PMEM).unwrap();
    (memory, fs)
}

/// A file of `pages` pages; all bytes of page `n` are `n + 1`.
pub(crate) fn filled(fs: &DaxFs, pages: u64) -> FileId {
    let file = fs.create(pages).unwrap();
    for page in 0..pages {
        fs.write(file, page, 0, &[page as u8 + 1; FRAME_LEN]).unwrap();
    }
    file
}

/// The first byte of each page.
fn contents(fs: &DaxFs, file: FileId) -> Vec<u8> {
    (0..fs.size(file).unwrap()).map(|page| fs.read(file, page).unwrap()[0]).collect()
}

pub(crate) fn mapped(memory: &Arc<GuestMemory>, fs: &Arc<DaxFs>, file: FileId) -> Arc<Process> {
    let process = Process::new(memory.clone()).unwrap();
    let size = fs.size(file).unwrap();
    fs.map(&process, AT, (file, 0..size), Rights::Write).unwrap();
    process
}

pub(crate) fn at(page: u64) -> Iova {
    Iova(AT.0 + page * FRAME)
}

fn byte(process: &Process, page: u64) -> u8 {
    let mut byte = [0];
    process.read(at(page), &mut byte).unwrap();
    byte[0]
}

#[track_caller]
fn assert_clean(fs: &DaxFs) {
    assert_eq!(fs.check(), Vec::<String>::new());
}

#[test]
fn a_mapped_file_is_its_blocks() {
    let (memory, fs) = filesystem();
    let file = filled(&fs, 4);
    let process = mapped(&memory, &fs, file);
    assert_eq!(byte(&process, 2), 3);
    process.write(Iova(AT.0 + 2 * FRAME - 1), &[77, 78]).unwrap();
    assert_eq!(fs.read(file, 1).unwrap()[4095], 77);
    assert_eq!(fs.read(file, 2).unwrap()[0], 78);
    fs.write(file, 3, 0, &[99]).unwrap();
    assert_eq!(byte(&process, 3), 99);
    assert_clean(&fs);
}

#[test]
fn truncate_and_punch_free_blocks_for_immediate_reuse() {
    let (memory, fs) = filesystem();
    let file = filled(&fs, 8);
    let process = mapped(&memory, &fs, file);
    process.populate(AT, 8 * FRAME).unwrap();
    let old = process.space.lookup(at(5)).unwrap().unwrap().gpa;
    let free = fs.free_blocks();
    fs.truncate(file, 6).unwrap();
    fs.punch(file, 5..6).unwrap();
    assert_eq!(fs.free_blocks(), free + 3);
    assert!(process.space.lookup(at(5)).unwrap().is_none(), "unmapped before it is freed");
    assert!(process.fault_at(at(6), false).is_err(), "beyond the end");
    let next = filled(&fs, 1);
    assert_eq!(
        memory.bytes(old, 1).unwrap(),
        fs.read(next, 0).unwrap()[..1],
        "the lowest free block is next"
    );
    assert_eq!(byte(&process, 5), 0);
    process.write(at(5), &[55]).unwrap();
    assert_eq!(contents(&fs, file), [1, 2, 3, 4, 5, 55]);
    assert_eq!(contents(&fs, next), [1]);
    assert_clean(&fs);
}

#[test]
fn collapse_and_insert_move_later_pages_and_mappings_follow() {
    let (memory, fs) = filesystem();
    let file = filled(&fs, 8);
    let process = mapped(&memory, &fs, file);
    process.populate(AT, 8 * FRAME).unwrap();
    fs.collapse(file, 2..4).unwrap();
    assert_eq!(contents(&fs, file), [1, 2, 5, 6, 7, 8]);
    assert_eq!(byte(&process, 2), 5);
    fs.insert(file, 1, 3).unwrap();
    assert_eq!(contents(&fs, file), [1, 0, 0, 0, 2, 5, 6, 7, 8]);
    assert_eq!(byte(&process, 7), 7);
    assert!(fs.collapse(file, 8..10).is_err() && fs.insert(file, 9, 1).is_err());
    assert_clean(&fs);
}

#[test]
fn a_shared_block_is_copied_when_either_file_is_written() {
    let (memory, fs) = filesystem();
    let file = filled(&fs, 4);
    let process = mapped(&memory, &fs, file);
    process.populate(AT, 4 * FRAME).unwrap();
    let free = fs.free_blocks();
    let copy = fs.reflink(file).unwrap();
    assert_eq!(fs.free_blocks(), free, "nothing is copied yet");
    process.write(Iova(at(1).0 + 8), &[66]).unwrap();
    fs.write(copy, 2, 0, &[44]).unwrap();
    assert_eq!((contents(&fs, file), contents(&fs, copy)), (vec![1, 2, 3, 4], vec![1, 2, 44, 4]));
    assert_eq!(
        (fs.read(file, 1).unwrap()[7..10].to_vec(), fs.read(copy, 1).unwrap()[8]),
        (vec![2, 66, 2], 2)
    );
    assert_eq!((fs.free_blocks(), fs.counters().copied), (free - 2, 2));
    assert_clean(&fs);
    fs.remove(copy).unwrap();
    assert_eq!(fs.free_blocks(), free);
    assert_clean(&fs);
}

#[test]
fn exchange_and_relocate_keep_contents_and_change_blocks() {
    let (memory, fs) = filesystem();
    let (one, other) = (filled(&fs, 4), fs.create(4).unwrap());
    (0..4).for_each(|page| fs.write(other, page, 0, &[page as u8 + 101]).unwrap());
    let process = mapped(&memory, &fs, one);
    process.populate(AT, 4 * FRAME).unwrap();
    fs.exchange(one, other, 1..3).unwrap();
    assert_eq!((contents(&fs, one), contents(&fs, other)), (vec![1, 102, 103, 4], vec![101, 2, 3, 104]));
    assert_eq!(byte(&process, 1), 102);
    let before = process.fault_at(at(3), false).unwrap().gpa;
    fs.relocate(one, 0..4).unwrap();
    assert_ne!(process.fault_at(at(3), false).unwrap().gpa, before);
    assert_eq!(contents(&fs, one), [1, 102, 103, 4]);
    assert!(fs.exchange(one, one, 0..1).is_err() && fs.exchange(one, other, 3..5).is_err());
    assert_clean(&fs);
}

#[test]
fn unwritten_blocks_read_as_zeroes_and_need_no_block_when_written() {
    let (memory, fs) = filesystem();
    let dirt = filled(&fs, 4);
    fs.remove(dirt).unwrap();
    let file = fs.create(2).unwrap();
    fs.allocate(file, 0..4).unwrap();
    assert!(fs.extents(file).unwrap().iter().all(|extent| extent.unwritten));
    assert_eq!(contents(&fs, file), [0; 4]);
    let free = fs.free_blocks();
    let process = mapped(&memory, &fs, file);
    process.write(at(3), &[9]).unwrap();
    assert_eq!((contents(&fs, file), fs.free_blocks()), (vec![0, 0, 0, 9], free));
    assert_clean(&fs);
}

#[test]
fn reading_a_hole_allocates_nothing_and_a_later_write_shows() {
    let (memory, fs) = filesystem();
    let file = fs.create(2).unwrap();
    let process = mapped(&memory, &fs, file);
    let free = fs.free_blocks();
    assert_eq!((byte(&process, 0), byte(&process, 1)), (0, 0));
    assert_eq!(fs.free_blocks(), free);
    fs.write(file, 0, 0, &[5]).unwrap();
    process.write(at(1), &[6]).unwrap();
    assert_eq!((byte(&process, 0), byte(&process, 1)), (5, 6));
    assert_clean(&fs);
}

#[test]
fn cleaning_makes_the_next_write_fault_and_its_result_survives_a_crash() {
    let (memory, fs) = filesystem();
    let file = filled(&fs, 1);
    let process = mapped(&memory, &fs, file);
    process.write(at(0), &[10]).unwrap();
    assert!(fs.is_dirty(file, 0).unwrap());
    fs.fsync(file).unwrap();
    assert!(!fs.is_dirty(file, 0).unwrap());
    assert!(!process.space.lookup(at(0)).unwrap().unwrap().writable());
    let dirtied = fs.counters().dirtied;
    process.write(at(0), &[11]).unwrap();
    assert_eq!(fs.counters().dirtied, dirtied + 1);
    assert_eq!(fs.after_crash(file, 0).unwrap()[0], 10);
    fs.fsync(file).unwrap();
    assert_eq!(fs.after_crash(file, 0).unwrap()[0], 11);
    // A write without a fault goes unnoticed.
    let page = process.space.lookup(at(0)).unwrap().unwrap().gpa;
    memory.fill(page, 1, 12).unwrap();
    fs.set_page_dirty(page);
    fs.fsync(file).unwrap();
    assert_eq!((fs.read(file, 0).unwrap()[0], fs.after_crash(file, 0).unwrap()[0]), (12, 11));
    assert_eq!(fs.counters().unexpected_dirty, 1);
}

#[test]
fn what_is_open_or_mapped_can_be_neither_removed_nor_unmounted() {
    let (memory, fs) = filesystem();
    let file = filled(&fs, 2);
    let process = mapped(&memory, &fs, file);
    fs.open(file).unwrap();
    process.unmap_area(AT, 2 * FRAME).unwrap();
    for busy in [fs.remove(file), fs.unmount()] {
        assert_eq!(busy.unwrap_err().errno(), Some(Errno::EBUSY));
    }
    assert_eq!(contents(&fs, file), [1, 2]);
    fs.close(file).unwrap();
    fs.unmount().unwrap();
    assert_eq!(fs.read(file, 0).unwrap_err().errno(), Some(Errno::EIO));
}

#[test]
fn removing_all_files_frees_all_blocks() {
    let (memory, fs) = filesystem();
    let free = fs.free_blocks();
    let file = filled(&fs, 8);
    let process = mapped(&memory, &fs, file);
    process.populate(AT, 8 * FRAME).unwrap();
    let copy = fs.reflink(file).unwrap();
    process.write(at(3), &[1]).unwrap();
    fs.punch(copy, 0..2).unwrap();
    fs.allocate(copy, 0..12).unwrap();
    fs.relocate(file, 0..8).unwrap();
    process.unmap_everything().unwrap();
    for file in [file, copy] {
        fs.remove(file).unwrap();
    }
    assert_eq!(fs.free_blocks(), free);
    assert_clean(&fs);
}

#[test]
fn a_full_filesystem_fails_with_enospc_and_stays_consistent() {
    let (_memory, fs) = filesystem();
    let file = fs.create(100).unwrap();
    let full = (0..100).find_map(|page| fs.write(file, page, 0, &[1]).err()).unwrap();
    assert_eq!((full.errno(), fs.free_blocks()), (Some(Errno::ENOSPC), 0));
    assert_clean(&fs);
}

#[test]
fn fsck_finds_what_is_wrong() {
    let (_memory, fs) = filesystem();
    let file = filled(&fs, 2);
    fs.lock().blocks.share(Block(1));
    fs.lock().file(file).unwrap().dirty.insert(7);
    let problems = fs.check();
    assert_eq!(problems.len(), 2, "{problems:?}");
}

/// Refuses to free blocks, and records the order of the calls.
#[derive(Default)]
struct Watching(Mutex<Vec<String>>);

impl Rule for Watching {
    fn before(&self, fs: &DaxFs, affected: &Affected) -> Result<(), FsError> {
        let free = fs.free_blocks();
        self.0.lock().unwrap().push(format!("{:?} {:?}, {free} free", affected.change, affected.pages));
        match affected.change {
            Change::Free => Err(FsError::refused(Errno::ETXTBSY, "no")),
            _ => Ok(()),
        }
    }
}

impl Mapped for Watching {
    fn zap(&self, pages: &std::ops::Range<u64>) -> Result<(), ModelError> {
        self.0.lock().unwrap().push(format!("zap {pages:?}"));
        Ok(())
    }

    fn zap_writes(&self, pages: &std::ops::Range<u64>) -> Result<(), ModelError> {
        self.0.lock().unwrap().push(format!("protect {pages:?}"));
        Ok(())
    }
}

#[test]
fn a_change_asks_the_rule_then_unmaps_then_frees() {
    let (_memory, fs) = filesystem();
    let file = filled(&fs, 4);
    fs.fsync(file).unwrap();
    let watching = Arc::new(Watching::default());
    fs.set_rule(watching.clone());
    let id = fs.watch(file, watching.clone()).unwrap();
    let free = fs.free_blocks();
    assert_eq!(fs.truncate(file, 1).unwrap_err().errno(), Some(Errno::ETXTBSY));
    assert_eq!((fs.size(file), fs.free_blocks()), (Ok(4), free), "refused is not done");
    let copy = fs.reflink(file).unwrap();
    fs.write(file, 2, 0, &[1]).unwrap();
    fs.fsync(file).unwrap();
    let noted = std::mem::take(&mut *watching.0.lock().unwrap());
    let free = |what: &str| format!("{what}, {free} free");
    let expected = [
        free("Free 1..4"),
        free("Share 0..4"),
        "zap 0..4".to_owned(),
        free("Copy 2..3"),
        "zap 2..3".to_owned(),
        "protect 2..3".to_owned(),
    ];
    assert_eq!(noted, expected);
    fs.forget(file, id);
    assert_eq!(contents(&fs, copy), [1, 2, 3, 4]);
}

#[test]
fn pins_follow_blocks_not_files() {
    let (memory, fs) = filesystem();
    let file = filled(&fs, 2);
    let process = mapped(&memory, &fs, file);
    let gpa = process.fault_at(at(1), true).unwrap().gpa;
    assert!(fs.pin(gpa, true) && !fs.pin(Gpa(0), true));
    assert_eq!(fs.pins(file, 0..2), Ok(Pins { all: 1, writing: 1 }));
    fs.punch(file, 1..2).unwrap();
    assert_eq!(
        (fs.pins(file, 0..2), fs.all_pins()),
        (Ok(Pins::default()), 1),
        "pins do not prevent a block from being freed"
    );
    fs.unpin(gpa, true);
    assert_eq!(fs.all_pins(), 0);
}
