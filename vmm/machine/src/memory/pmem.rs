//! What backs a persistent memory region: a shared or private file, or anonymous memory.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use thiserror::Error;
use vm_memory::FileOffset;

use crate::config::{PMEM_ALIGN, PmemBacking, PmemConfig};
use refault_os::message::note;

/// Why a file cannot back a persistent memory region.
#[derive(Debug, Error)]
#[error("persistent memory file {}: {why}", .path.display())]
pub struct PmemError {
    /// Path of the file.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub why: Unfit,
}

/// What is wrong with a file.
#[derive(Debug, Error)]
pub enum Unfit {
    /// It cannot be opened, created or locked.
    #[error("{0}")]
    Closed(io::Error),
    /// It is a directory or a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// Another machine uses it.
    #[error("it is in use by another machine; stop that one, or copy the file")]
    InUse,
    /// It is empty, and no size was given.
    #[error("it is empty; give its size, as in --pmem FILE,size=1G")]
    Empty,
    /// Its size is no multiple of 2 MiB; the guest maps it with large pages.
    #[error("it has {0} bytes, which is not a multiple of 2 MiB; make it one with: truncate -s %2M FILE")]
    OddSize(u64),
    /// Its size differs from the configured one.
    #[error(
        "it has {found} bytes but the region has {wanted}; leave the size out, or resize the file with: \
         truncate -s {wanted} FILE"
    )]
    WrongSize {
        /// Its size in bytes.
        found: u64,
        /// Configured size in bytes.
        wanted: u64,
    },
    /// Its file system is full, or cannot hold files of that size.
    #[error(
        "its file system has no room for all of its {} MiB ({source}); make room, or give a smaller size or a file \
         on another file system", .size >> 20
    )]
    NoRoom {
        /// Size of the region in bytes.
        size: u64,
        /// The system's error.
        source: io::Error,
    },
}

/// How to map a region.
#[derive(Debug)]
pub struct Backing {
    /// The file to map, or `None` for anonymous memory. Its lock is released when the last copy of the descriptor is
    /// closed.
    pub file: Option<FileOffset>,
    /// Whether writes reach the file.
    pub shared: bool,
    /// The physical address to map the file at, if it is memory of this machine.
    pub at: Option<u64>,
}

impl Backing {
    /// Anonymous memory, lost with the machine.
    pub const NONE: Self = Self { file: None, shared: false, at: None };
}

/// Opens, checks and locks the file behind `region`. A file opened for shared writing is created if it does not exist, and
/// has all its space allocated afterwards.
///
/// # Errors
/// The file is unsuitable, in use, or does not fit on its disk.
pub fn open(region: &PmemConfig) -> Result<Backing, PmemError> {
    let size = region.size;
    let (path, file) = match &region.backing {
        PmemBacking::Anonymous => return Ok(Backing::NONE),
        PmemBacking::Shared(path) => (path, claim(path, size)),
        PmemBacking::Lent(path, _) => (path, reopen(path, size)),
        PmemBacking::Private(path) => (path, borrow(path, size)),
    };
    let file = file.map_err(|why| PmemError { path: path.clone(), why })?;
    let at = match region.backing {
        PmemBacking::Lent(_, at) => Some(at),
        _ => None,
    };
    let shared = !matches!(region.backing, PmemBacking::Private(_));
    Ok(Backing { file: Some(FileOffset::new(file, 0)), shared, at })
}

/// Opens a file for this machine alone. It is locked before it is changed: of two machines that would create it, one does.
fn claim(path: &Path, size: u64) -> Result<File, Unfit> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let (file, made) = match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            (options.open(path).map_err(closed)?, false)
        }
        made => (made.map_err(closed)?, true),
    };
    lock(file.try_lock())?;
    let found = file.metadata().map_err(Unfit::Closed)?;
    let checked = match found.is_file() && found.len() == 0 && size != 0 {
        // It may be a leftover of a run that was killed while creating it.
        true => whole(size),
        false => check(&found, size),
    };
    let ready = checked.and_then(|()| reserve(&file, path, size, &found));
    if made && ready.is_err() {
        // A file that cannot be completed is removed. The lock says that no other machine has it.
        let _ = std::fs::remove_file(path);
    }
    ready.map(|()| file)
}

/// Opens a file that this machine was lent as memory. Its name is only for writing that memory out, which needs no right to
/// write the file.
fn reopen(path: &Path, size: u64) -> Result<File, Unfit> {
    let file = File::open(path).map_err(closed)?;
    check(&file.metadata().map_err(Unfit::Closed)?, size)?;
    Ok(file)
}

/// Opens a file that other machines may read too, but none may write.
fn borrow(path: &Path, size: u64) -> Result<File, Unfit> {
    let file = File::open(path).map_err(closed)?;
    lock(file.try_lock_shared())?;
    check(&file.metadata().map_err(Unfit::Closed)?, size)?;
    Ok(file)
}

fn closed(error: io::Error) -> Unfit {
    if error.kind() == ErrorKind::IsADirectory { Unfit::NotAFile } else { Unfit::Closed(error) }
}

fn lock(result: Result<(), TryLockError>) -> Result<(), Unfit> {
    result.map_err(|error| match error {
        TryLockError::WouldBlock => Unfit::InUse,
        TryLockError::Error(source) => Unfit::Closed(source),
    })
}

fn check(file: &Metadata, wanted: u64) -> Result<(), Unfit> {
    let found = file.len();
    match () {
        () if !file.is_file() => Err(Unfit::NotAFile),
        () if found == 0 => Err(Unfit::Empty),
        () if found.is_multiple_of(PMEM_ALIGN) && found != wanted => Err(Unfit::WrongSize { found, wanted }),
        () => whole(found),
    }
}

fn whole(size: u64) -> Result<(), Unfit> {
    if size.is_multiple_of(PMEM_ALIGN) { Ok(()) } else { Err(Unfit::OddSize(size)) }
}

/// Allocates the holes of a file, if there are any. Otherwise a full disk would show in the middle of a guest's store,
/// which cannot be recovered from.
fn reserve(file: &File, path: &Path, size: u64, found: &Metadata) -> Result<(), Unfit> {
    if !has_holes(found, size) {
        return Ok(());
    }
    match allocate(file, size) {
        Ok(true) => Ok(()),
        Ok(false) => {
            note(&format!(
                "the file system of {} cannot allocate space in advance: if it fills up, the run ends",
                path.display()
            ));
            Ok(())
        }
        Err(source) => Err(Unfit::NoRoom { size, source }),
    }
}

fn has_holes(file: &Metadata, size: u64) -> bool {
    file.len() < size || file.blocks().saturating_mul(512) < size
}

/// Extends `file` to at least `size` bytes and allocates all of them; false if its file system does not support that.
///
/// # Errors
/// The disk is full, or the file system cannot hold files of that size.
pub fn allocate(file: &File, size: u64) -> io::Result<bool> {
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, size) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                if file.metadata()?.len() < size {
                    file.set_len(size)?;
                }
                return Ok(false);
            }
            done => return Ok(done.map(|()| true)?),
        }
    }
}

/// The message about a file that has lost bytes while its machine ran, if there is one. The machine itself only sees that an
/// access failed, not why.
pub fn lost(regions: &[PmemConfig]) -> Option<String> {
    regions.iter().find_map(|region| {
        let PmemBacking::Shared(path) = &region.backing else { return None };
        let (path, now) = (path.display(), std::fs::metadata(path).ok()?);
        let PmemConfig { size, .. } = region;
        match now.len() < *size {
            true => Some(format!(
                "persistent memory file {path} was truncated while in use, from {size} bytes to {}: the guest's data \
                 there is lost; restore the file's size with: truncate -s {size} {path}",
                now.len()
            )),
            false if has_holes(&now, *size) => Some(format!(
                "persistent memory file {path} has holes, for which its file system may have no space: free some, and \
                 start again"
            )),
            false => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A folder on a file system that supports holes and their allocation.
    fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    fn file(size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        file.as_file().set_len(size).unwrap();
        file
    }

    fn shared(path: &Path, size: u64) -> PmemConfig {
        PmemConfig { backing: PmemBacking::Shared(path.to_path_buf()), size }
    }

    fn private(path: &Path, size: u64) -> PmemConfig {
        PmemConfig { backing: PmemBacking::Private(path.to_path_buf()), size }
    }

    #[test]
    fn a_missing_file_is_created_in_full_and_locked() {
        let folder = folder();
        let path = folder.path().join("disk");
        let first = open(&shared(&path, 4 * MIB)).unwrap();
        let made = std::fs::metadata(&path).unwrap();
        assert_eq!(made.len(), 4 * MIB);
        assert!(!has_holes(&made, 4 * MIB));
        assert!(matches!(open(&shared(&path, 4 * MIB)).unwrap_err().why, Unfit::InUse));
        drop(first);
        std::fs::write(&path, "").unwrap();
        open(&shared(&path, 4 * MIB)).expect("what a killed run left is made whole");
        let absent = open(&private(&folder.path().join("root"), 4 * MIB)).unwrap_err().to_string();
        assert!(absent.contains("root: No such file"), "{absent}");
    }

    #[test]
    fn a_file_that_does_not_fit_is_refused_and_removed() {
        let folder = folder();
        let path = folder.path().join("disk");
        // Larger than any file system supports.
        let size = (1 << 62) - PMEM_ALIGN;
        let error = open(&shared(&path, size)).unwrap_err();
        assert!(matches!(error.why, Unfit::NoRoom { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("disk") && text.contains("make room"), "{text}");
        assert!(!path.exists());
        open(&shared(&path, 4097)).unwrap_err();
        assert!(!path.exists());
    }

    #[test]
    fn holes_are_filled_and_nothing_else_changes() {
        let file = file(4 * MIB);
        std::os::unix::fs::FileExt::write_all_at(file.as_file(), b"refault", MIB).unwrap();
        open(&shared(file.path(), 4 * MIB)).unwrap();
        assert!(!has_holes(&file.as_file().metadata().unwrap(), 4 * MIB));
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!((bytes.len(), &bytes[MIB as usize..][..7]), (4 << 20, b"refault".as_slice()));
    }

    #[test]
    fn a_wrong_size_is_refused_with_the_remedy() {
        for size in [4095, 2 * MIB + 4096] {
            let file = file(size);
            let error = open(&shared(file.path(), size)).unwrap_err();
            assert!(matches!(error.why, Unfit::OddSize(found) if found == size));
            assert!(error.to_string().contains("truncate -s %2M"));
        }
        let empty = open(&shared(file(0).path(), 0)).unwrap_err();
        assert!(matches!(empty.why, Unfit::Empty), "{empty}");
    }

    #[test]
    fn a_size_other_than_configured_is_refused() {
        let file = file(4 * MIB);
        let error = open(&shared(file.path(), 8 * MIB)).unwrap_err();
        assert!(matches!(error.why, Unfit::WrongSize { found, wanted } if found < wanted), "{error}");
    }

    #[test]
    fn a_file_in_use_is_refused_until_it_is_free() {
        let file = file(4 * MIB);
        let first = open(&shared(file.path(), 4 * MIB)).unwrap();
        let error = open(&shared(file.path(), 4 * MIB)).unwrap_err();
        assert!(matches!(error.why, Unfit::InUse) && error.to_string().contains("in use"));
        assert!(matches!(open(&private(file.path(), 4 * MIB)).unwrap_err().why, Unfit::InUse));
        drop(first);
        open(&shared(file.path(), 4 * MIB)).unwrap();
    }

    #[test]
    fn private_users_share_a_file() {
        let file = file(4 * MIB);
        let private = private(file.path(), 4 * MIB);
        let first = open(&private).unwrap();
        let second = open(&private).unwrap();
        assert!(!first.shared && second.file.is_some());
        assert!(matches!(open(&shared(file.path(), 4 * MIB)).unwrap_err().why, Unfit::InUse));
    }

    #[test]
    fn a_directory_cannot_be_memory() {
        let directory = tempfile::tempdir().unwrap();
        for region in [shared(directory.path(), 4 * MIB), private(directory.path(), 4 * MIB)] {
            let error = open(&region).unwrap_err();
            assert!(matches!(error.why, Unfit::NotAFile), "{error}");
        }
    }

    #[test]
    fn a_file_that_lost_bytes_is_named() {
        let file = file(4 * MIB);
        let regions = [shared(file.path(), 4 * MIB)];
        let _held = open(&regions[0]).unwrap();
        assert_eq!(lost(&regions), None);
        file.as_file().set_len(2 * MIB).unwrap();
        let text = lost(&regions).unwrap();
        assert!(text.contains("truncated") && text.contains(&file.path().display().to_string()), "{text}");
        file.as_file().set_len(4 * MIB).unwrap();
        assert!(lost(&regions).unwrap().contains("holes"));
    }
}
