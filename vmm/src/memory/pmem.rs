//! What lies behind a persistent memory region: a file, shared or private, or nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use vm_memory::FileOffset;

use crate::config::{PMEM_ALIGN, PmemBacking, PmemConfig};

/// Why a file cannot back a persistent memory region.
#[derive(Debug, Error)]
pub enum PmemError {
    /// It is not there.
    #[error("persistent memory file {} does not exist; make one with: truncate -s {size} {}", .path.display(), .path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
        /// The size the region is to have, in bytes.
        size: u64,
    },
    /// It is there but cannot be used.
    #[error("cannot open persistent memory file {}: {source}", .path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a device.
    #[error("{} is not a regular file and cannot back persistent memory", .path.display())]
    NotAFile {
        /// Which path.
        path: PathBuf,
    },
    /// Another machine has it.
    #[error("persistent memory file {} is in use by another machine; stop that one, or copy the file", .path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// The guest maps it in large pages.
    #[error(
        "persistent memory file {} has {found} bytes, which is not a multiple of 2 MiB; \
         make it one with: truncate -s %2M {}", .path.display(), .path.display()
    )]
    OddSize {
        /// Which file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
    },
    /// The file is not what the configuration says.
    #[error(
        "persistent memory file {} has {found} bytes but the region is to have {wanted}; \
         leave the size out, or resize the file with: truncate -s {wanted} {}", .path.display(), .path.display()
    )]
    WrongSize {
        /// Which file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The region's.
        wanted: u64,
    },
}

/// How to map a region.
#[derive(Debug)]
pub struct Backing {
    /// The file to map, or none for anonymous memory. Its lock is released when the last copy of it closes.
    pub file: Option<FileOffset>,
    /// Writes reach the file.
    pub shared: bool,
}

/// Opens, checks and - if writes are to reach it - locks what lies behind `region`.
pub fn open(region: &PmemConfig) -> Result<Backing, PmemError> {
    let (path, shared) = match &region.backing {
        PmemBacking::Anonymous => return Ok(Backing { file: None, shared: false }),
        PmemBacking::Shared(path) => (path, true),
        PmemBacking::Private(path) => (path, false),
    };
    let file = open_file(path, shared, region.size)?;
    // A private mapping does not mind other readers, but must not see a machine that writes.
    let lock = if shared { file.try_lock() } else { file.try_lock_shared() };
    match lock {
        Ok(()) => Ok(Backing { file: Some(FileOffset::new(file, 0)), shared }),
        Err(TryLockError::WouldBlock) => Err(PmemError::InUse { path: path.clone() }),
        Err(TryLockError::Error(source)) => Err(PmemError::Open { path: path.clone(), source }),
    }
}

fn open_file(path: &Path, writable: bool, wanted: u64) -> Result<File, PmemError> {
    let path_buf = || path.to_path_buf();
    let file = match OpenOptions::new().read(true).write(writable).open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == io::ErrorKind::NotFound => {
            return Err(PmemError::Missing { path: path_buf(), size: wanted });
        }
        Err(source) if source.kind() == io::ErrorKind::IsADirectory => {
            return Err(PmemError::NotAFile { path: path_buf() });
        }
        Err(source) => return Err(PmemError::Open { path: path_buf(), source }),
    };
    let metadata = file.metadata().map_err(|source| PmemError::Open { path: path_buf(), source })?;
    let found = metadata.len();
    if !metadata.is_file() {
        Err(PmemError::NotAFile { path: path_buf() })
    } else if found == 0 || !found.is_multiple_of(PMEM_ALIGN) {
        Err(PmemError::OddSize { path: path_buf(), found })
    } else if found != wanted {
        Err(PmemError::WrongSize { path: path_buf(), found, wanted })
    } else {
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn file(size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        file
    }

    fn shared(path: &Path, size: u64) -> PmemConfig {
        PmemConfig { backing: PmemBacking::Shared(path.to_path_buf()), size }
    }

    #[test]
    fn a_missing_file_is_named_with_the_command_that_makes_it() {
        let error = open(&shared(Path::new("/nonexistent/disk"), 4 * MIB)).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/disk") && error.contains("truncate -s 4194304"), "{error}");
    }

    #[test]
    fn an_odd_size_is_refused_with_the_remedy() {
        for size in [0, 4095, 2 * MIB + 4096] {
            let file = file(size);
            let error = open(&shared(file.path(), size)).unwrap_err();
            assert!(matches!(error, PmemError::OddSize { found, .. } if found == size));
            assert!(error.to_string().contains("truncate -s %2M"));
        }
    }

    #[test]
    fn a_size_other_than_configured_is_refused() {
        let file = file(4 * MIB);
        let error = open(&shared(file.path(), 8 * MIB)).unwrap_err();
        assert!(matches!(error, PmemError::WrongSize { found, wanted, .. } if found < wanted), "{error}");
    }

    #[test]
    fn a_file_in_use_is_refused_until_it_is_free() {
        let file = file(4 * MIB);
        let first = open(&shared(file.path(), 4 * MIB)).unwrap();
        let error = open(&shared(file.path(), 4 * MIB)).unwrap_err();
        assert!(matches!(error, PmemError::InUse { .. }) && error.to_string().contains("in use"));
        let private = PmemConfig { backing: PmemBacking::Private(file.path().into()), size: 4 * MIB };
        assert!(matches!(open(&private), Err(PmemError::InUse { .. })));
        drop(first);
        open(&shared(file.path(), 4 * MIB)).unwrap();
    }

    #[test]
    fn private_users_share_a_file() {
        let file = file(4 * MIB);
        let private = PmemConfig { backing: PmemBacking::Private(file.path().into()), size: 4 * MIB };
        let first = open(&private).unwrap();
        let second = open(&private).unwrap();
        assert!(!first.shared && second.file.is_some());
        assert!(matches!(open(&shared(file.path(), 4 * MIB)), Err(PmemError::InUse { .. })));
    }

    #[test]
    fn a_directory_is_no_memory() {
        let directory = tempfile::tempdir().unwrap();
        let error = open(&shared(directory.path(), 4 * MIB)).unwrap_err();
        assert!(matches!(error, PmemError::NotAFile { .. }), "{error}");
        let private = PmemConfig { backing: PmemBacking::Private(directory.path().into()), size: 4 * MIB };
        assert!(matches!(open(&private), Err(PmemError::NotAFile { .. })));
    }
}
