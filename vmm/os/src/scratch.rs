//! Folders for temporary files. A process that is killed cannot remove its folder; the next one that makes a folder does.
//!
//! In each folder is a file that its process keeps locked. The kernel unlocks it when the process is gone, however it
//! ended. A folder without that file is never touched, whatever its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use tempfile::TempDir;

/// What the names of folders begin with: short, since a socket's path has at most 107 bytes.
const PREFIX: &str = "refault-";
/// The file that is kept locked.
const LOCK: &str = ".refault-in-use";
/// Times that another process may take a new folder for an abandoned one, before it is locked.
const ATTEMPTS: usize = 16;

/// A folder that only this user can access. It is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes a folder where temporary files belong, and removes those that killed processes have left there.
    ///
    /// # Errors
    /// No folder can be made there, or no file in it be locked.
    pub fn new() -> io::Result<Self> {
        Self::new_in(&tempfile::env::temp_dir())
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn new_in(parent: &Path) -> io::Result<Self> {
        // Whatever cannot be removed stays: that is no reason to fail.
        let _ = remove_abandoned(parent);
        for _ in 0..ATTEMPTS {
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
            if let Some(lock) = claim(folder.path())? {
                return Ok(Self { folder, _lock: lock });
            }
        }
        Err(ErrorKind::ResourceBusy.into())
    }
}

/// Locks a new folder; `None` if another process has taken it for an abandoned one meanwhile.
fn claim(folder: &Path) -> io::Result<Option<File>> {
    let path = folder.join(LOCK);
    let lock = match File::create_new(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => Ok(path.exists().then_some(lock)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Removes this user's folders in `parent` whose processes are gone.
fn remove_abandoned(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let Ok(entry) = entry else { continue };
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            let _ = remove_if_abandoned(&entry.path());
        }
    }
    Ok(())
}

fn remove_if_abandoned(folder: &Path) -> io::Result<()> {
    let owner = fs::symlink_metadata(folder)?;
    if !owner.is_dir() || owner.uid() != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let lock = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(folder.join(LOCK))?;
    if lock.try_lock().is_ok() {
        // Locked until it is gone: its process may not have locked it yet, and then sees that it is too late.
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder as a killed process leaves it.
    fn abandon(scratch: Scratch) -> std::path::PathBuf {
        scratch.folder.keep()
    }

    fn names(parent: &Path) -> usize {
        fs::read_dir(parent).expect("a folder").count()
    }

    #[test]
    fn what_a_killed_process_left_is_removed_by_the_next_one() {
        let parent = tempfile::tempdir().expect("a folder");
        let left = abandon(Scratch::new_in(parent.path()).expect("made"));
        fs::create_dir(left.join("sockets")).expect("made");
        fs::write(left.join("sockets/monitor"), "").expect("written");
        let next = Scratch::new_in(parent.path()).expect("made");
        assert!(!left.exists() && next.path().exists());
        drop(next);
        assert_eq!(names(parent.path()), 0);
    }

    #[test]
    fn folders_in_use_and_those_of_others_stay() {
        let parent = tempfile::tempdir().expect("a folder");
        let used = Scratch::new_in(parent.path()).expect("made");
        let others = ["refault-notes", "other"].map(|name| parent.path().join(name));
        others.iter().for_each(|path| fs::create_dir(path).expect("made"));
        fs::write(others[1].join(LOCK), "").expect("written");
        let elsewhere = tempfile::tempdir().expect("a folder");
        fs::write(elsewhere.path().join(LOCK), "").expect("written");
        std::os::unix::fs::symlink(elsewhere.path(), parent.path().join("refault-link")).expect("linked");
        drop(Scratch::new_in(parent.path()).expect("made"));
        assert!(used.path().exists() && others.iter().all(|path| path.exists()));
        assert!(elsewhere.path().join(LOCK).exists());
    }

    #[test]
    fn a_folder_that_was_taken_away_before_it_was_locked_is_not_used() {
        let parent = tempfile::tempdir().expect("a folder");
        let new = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent.path()).expect("made");
        fs::remove_dir(new.path()).expect("removed");
        assert!(claim(new.path()).expect("no failure").is_none());
    }
}
