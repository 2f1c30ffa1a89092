//! Writes files below a folder that the user chose, under names that come from the guest. No symbolic link is followed, so
//! nothing is written outside the folder.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

/// The user's folder. Symbolic links on the path to it are the user's own and are followed.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens the folder, creating it first if it does not exist.
    ///
    /// # Errors
    /// The folder cannot be created, or the path is not a folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        std::fs::create_dir_all(path)?;
        Ok(Self(openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Creates a folder below this one, with its parents.
    ///
    /// # Errors
    /// A component of the path is a symbolic link, a file, or not a plain name.
    pub fn create(&self, below: &Path) -> io::Result<Self> {
        let mut folder = self.0.try_clone()?;
        for part in below.components() {
            let Component::Normal(name) = part else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "its name points outside the folder",
                ));
            };
            match mkdirat(&folder, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            folder = openat(&folder, name, flags, Mode::empty())?;
        }
        Ok(Self(folder))
    }

    /// Writes a file below this folder, replacing an existing one. `mode` is as for chmod, without the set-id bits. The
    /// file appears complete or not at all.
    ///
    /// # Errors
    /// A component of the path is a symbolic link or not a plain name, the target is a folder, or the disk is full.
    pub fn write(&self, below: &Path, mode: u32, from: &mut dyn Read) -> io::Result<()> {
        let name = below.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let folder = self.create(below.parent().unwrap_or(Path::new("")))?;
        let (temporary, mut file) = folder.temporary()?;
        let written = io::copy(from, &mut file)
            .and_then(|_| Ok(fchmod(&file, Mode::from_raw_mode(mode & 0o777))?))
            .and_then(|()| Ok(renameat(&folder.0, &*temporary, &folder.0, name)?));
        if written.is_err() {
            let _ = unlinkat(folder.0.as_fd(), &*temporary, AtFlags::empty());
        }
        written
    }

    /// Creates a file with a name that no other file has.
    fn temporary(&self) -> io::Result<(String, File)> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!(".refault-{}-{count}", std::process::id());
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            match openat(&self.0, OsStr::new(&name), flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok((name, file.into())),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn files_are_complete_and_have_their_modes() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::open(&scratch.path().join("new/one")).expect("made");
        for text in ["first", "second"] {
            folder.write(Path::new("a/b/tool"), 0o4751, &mut text.as_bytes()).expect("written");
        }
        let file = scratch.path().join("new/one/a/b/tool");
        assert_eq!(fs::read_to_string(&file).expect("there"), "second");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o7777, 0o751);
        assert_eq!(fs::read_dir(file.parent().expect("a folder")).expect("readable").count(), 1);
    }

    #[test]
    fn symbolic_links_are_not_followed() {
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let (inside, outside) = (scratch.path().join("in"), scratch.path().join("out"));
        fs::create_dir_all(&outside).expect("made");
        let folder = Folder::open(&inside).expect("made");
        symlink(&outside, inside.join("link")).expect("linked");
        fs::write(outside.join("file"), "kept").expect("written");
        symlink(outside.join("file"), inside.join("file")).expect("linked");
        assert!(folder.write(Path::new("link/new"), 0o644, &mut &b"x"[..]).is_err());
        assert!(folder.write(Path::new("../out/new"), 0o644, &mut &b"x"[..]).is_err());
        assert!(folder.create(Path::new("/tmp")).is_err());
        // A symbolic link as the file itself is replaced.
        folder.write(Path::new("file"), 0o644, &mut &b"new"[..]).expect("written");
        assert_eq!(fs::read_to_string(outside.join("file")).expect("there"), "kept");
        assert_eq!(fs::read_dir(&outside).expect("readable").count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_no_file() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let scratch = tempfile::tempdir().expect("a temporary folder");
        let folder = Folder::open(scratch.path()).expect("there");
        folder.create(Path::new("dir")).expect("made");
        assert!(folder.write(Path::new("file"), 0o644, &mut Broken).is_err());
        assert!(folder.write(Path::new("dir"), 0o644, &mut &b"x"[..]).is_err(), "a folder stays one");
        assert_eq!(fs::read_dir(scratch.path()).expect("readable").count(), 1);
    }
}
