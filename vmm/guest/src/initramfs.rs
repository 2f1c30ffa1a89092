//! Initial RAM file systems: cpio archives in the "newc" format, of which the kernel accepts several in a row.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use cpio::NewcBuilder;
use cpio::newc::{ModeFileType, trailer};

/// An archive being written. Parent folders are added as needed.
pub struct Initramfs<W: Write> {
    out: W,
    inode: u32,
    folders: BTreeSet<PathBuf>,
}

impl Initramfs<BufWriter<File>> {
    /// Creates the archive file.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self::new(BufWriter::new(file)))
    }
}

impl<W: Write> Initramfs<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Self { out, inode: 1, folders: BTreeSet::new() }
    }

    /// Adds a file with its contents and permission bits.
    ///
    /// # Errors
    /// The archive cannot be written, or the file is larger than the format allows (4 GiB).
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
        self.copy(path, mode, contents.len() as u64, contents)
    }

    /// Adds a folder.
    ///
    /// # Errors
    /// The archive cannot be written.
    pub fn folder(&mut self, path: &str) -> Result<()> {
        self.parents(Path::new(path))?;
        self.one_folder(relative(Path::new(path)))
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// The archive cannot be written.
    pub fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.parents(Path::new(path))?;
        let header = self.header(path, ModeFileType::Symlink, 0o777);
        self.entry(header, target.len() as u64, target.as_bytes())
    }

    /// Adds a file or a whole folder of the host.
    ///
    /// # Errors
    /// Part of it cannot be read, or is neither file, folder nor symbolic link.
    pub fn host(&mut self, from: &Path, path: &str) -> Result<()> {
        let unreadable = || format!("cannot read {}", from.display());
        let meta = fs::metadata(from).with_context(unreadable)?;
        if meta.is_dir() {
            self.folder(path)?;
            let mut names: Vec<_> =
                fs::read_dir(from).with_context(unreadable)?.collect::<io::Result<_>>()?;
            names.sort_by_key(fs::DirEntry::file_name);
            return names.iter().try_for_each(|entry| self.child(entry, path));
        }
        if meta.file_type().is_char_device() || !meta.is_file() {
            bail!("{} is neither a file nor a folder", from.display());
        }
        let file = File::open(from).with_context(unreadable)?;
        self.copy(path, meta.permissions().mode() & 0o7777, meta.size(), file)
    }

    /// Writes the trailer.
    ///
    /// # Errors
    /// The archive cannot be written.
    pub fn finish(self) -> Result<()> {
        trailer(self.out)?.flush()?;
        Ok(())
    }

    fn child(&mut self, entry: &fs::DirEntry, path: &str) -> Result<()> {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            bail!("{}: this name is not UTF-8", entry.path().display());
        };
        let path = format!("{}/{name}", path.trim_end_matches('/'));
        if entry.file_type()?.is_symlink() {
            let target = fs::read_link(entry.path())?;
            return self.link(&path, &target.to_string_lossy());
        }
        self.host(&entry.path(), &path)
    }

    fn copy(&mut self, path: &str, mode: u32, size: u64, from: impl Read) -> Result<()> {
        self.parents(Path::new(path))?;
        let header = self.header(path, ModeFileType::Regular, mode);
        self.entry(header, size, from).with_context(|| format!("cannot put {path} into an initramfs"))
    }

    fn entry(&mut self, header: NewcBuilder, size: u64, mut from: impl Read) -> Result<()> {
        let size = u32::try_from(size).context("a file of 4 GiB or more does not fit")?;
        let mut writer = header.write(&mut self.out, size);
        // A file that grows meanwhile must not overrun its entry; one that shrinks is an error below.
        let copied = io::copy(&mut from.by_ref().take(size.into()), &mut writer)?;
        if copied != u64::from(size) {
            bail!("it shrank while it was being read");
        }
        writer.finish()?;
        Ok(())
    }

    fn parents(&mut self, path: &Path) -> Result<()> {
        let parents: Vec<_> = relative(path).ancestors().skip(1).map(Path::to_path_buf).collect();
        parents.into_iter().rev().try_for_each(|parent| self.one_folder(parent))
    }

    fn one_folder(&mut self, path: PathBuf) -> Result<()> {
        if path.as_os_str().is_empty() || !self.folders.insert(path.clone()) {
            return Ok(());
        }
        let header = self.header(&path.to_string_lossy(), ModeFileType::Directory, 0o755);
        self.entry(header, 0, io::empty())
    }

    fn header(&mut self, path: &str, kind: ModeFileType, mode: u32) -> NewcBuilder {
        self.inode += 1;
        let name = relative(Path::new(path));
        NewcBuilder::new(&name.to_string_lossy()).ino(self.inode).nlink(1).mode(mode).set_mode_file_type(kind)
    }
}

/// The path without a leading slash and without any component that leaves the archive.
fn relative(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, modes and contents, read by the crate's own reader.
    fn list(mut bytes: &[u8]) -> Vec<(String, u32, String)> {
        let mut entries = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(bytes).expect("an entry");
            if reader.entry().is_trailer() {
                return entries;
            }
            let mut contents = String::new();
            reader.read_to_string(&mut contents).expect("contents");
            let entry = (reader.entry().name().to_string(), reader.entry().mode(), contents);
            entries.push(entry);
            bytes = reader.finish().expect("the next");
        }
    }

    #[test]
    fn parents_are_added_once_and_before_their_children() {
        let mut bytes = Vec::new();
        let mut archive = Initramfs::new(&mut bytes);
        archive.file("/a/b/one", 0o755, b"1").expect("file");
        archive.file("a/b/two", 0o600, b"22").expect("file");
        archive.link("/a/three", "b/one").expect("link");
        archive.finish().expect("end");
        let entries = list(&bytes);
        let expected = [
            ("a", 0o040_755, ""),
            ("a/b", 0o040_755, ""),
            ("a/b/one", 0o100_755, "1"),
            ("a/b/two", 0o100_600, "22"),
            ("a/three", 0o120_777, "b/one"),
        ];
        assert_eq!(entries, expected.map(|(name, mode, text)| (name.into(), mode, text.into())));
    }

    #[test]
    fn a_name_cannot_leave_the_archive() {
        assert_eq!(relative(Path::new("/../x/./../y")), Path::new("x/y"));
    }

    #[test]
    fn a_folder_of_the_host_is_added_completely() {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::create_dir(folder.path().join("sub")).expect("folder");
        fs::write(folder.path().join("sub/file"), "text").expect("file");
        std::os::unix::fs::symlink("sub/file", folder.path().join("link")).expect("link");
        let mut bytes = Vec::new();
        let mut archive = Initramfs::new(&mut bytes);
        archive.host(folder.path(), "/in").expect("readable");
        assert!(archive.host(Path::new("/dev/null"), "/null").is_err());
        archive.finish().expect("end");
        let names: Vec<_> = list(&bytes).into_iter().map(|(name, _, text)| (name, text)).collect();
        let expected = [("in", ""), ("in/link", "sub/file"), ("in/sub", ""), ("in/sub/file", "text")];
        assert_eq!(names, expected.map(|(name, text)| (name.to_string(), text.to_string())));
    }
}
