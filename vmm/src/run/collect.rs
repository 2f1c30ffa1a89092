//! Files from the guest: a tar archive in a memory region, unpacked without trust in the guest.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::options::parse::Out;
use refault_os::confined::Folder;
use refault_os::message::note;

/// Maximum number of entries: a guest could fill the host's file system with empty files.
const ENTRIES_MAX: usize = if cfg!(test) { 100 } else { 100_000 };

/// Maximum bytes of an entry's name and other extensions, which are read as a whole; paths have 4 KiB at most.
const EXTENSION_MAX: u64 = 64 << 10;

/// Copies what `requested` names out of the archive, to each of its host paths.
///
/// # Errors
/// The archive is damaged, a requested path is not in it, or a file on the host cannot be written.
pub(super) fn unpack(archive: &File, requested: &[Out]) -> Result<()> {
    let size = archive.metadata()?.len();
    let mut found = vec![false; requested.len()];
    refuse_what_takes_memory(archive)?;
    let mut archive = tar::Archive::new(archive);
    for (count, entry) in archive.entries()?.enumerate() {
        ensure!(count < ENTRIES_MAX, "more than {ENTRIES_MAX} files: let the guest make one archive of them");
        let mut entry = entry.context("what the guest collected is not an archive")?;
        let path = entry.path()?.into_owned();
        let mut targets = Vec::new();
        for (out, found) in requested.iter().zip(&mut found) {
            let Some(target) = Target::of(out, &path, entry.header().entry_type().is_dir()) else { continue };
            *found = true;
            targets.push(target);
        }
        ensure!(
            entry.size() <= size,
            "the guest claims {} bytes for {}: more than it has room for",
            entry.size(),
            path.display()
        );
        take(&mut entry, &path, &targets)?;
    }
    match requested.iter().zip(&found).find(|(_, found)| !**found) {
        None => Ok(()),
        Some((out, _)) => bail!("the guest has no {}", out.guest),
    }
}

/// Looks through an archive, and leaves it where it was. Refuses what the reader would hold as a whole: long names, and
/// the map of a sparse file, which the guest's tar does not write.
fn refuse_what_takes_memory(mut archive: &File) -> Result<()> {
    let start = archive.stream_position()?;
    for entry in tar::Archive::new(archive).entries_with_seek()?.raw(true) {
        let Ok(entry) = entry else { break }; // The other reader says what is wrong.
        let kind = entry.header().entry_type();
        let extends = kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions();
        ensure!(
            !extends || entry.size() <= EXTENSION_MAX,
            "the guest's archive has a name of {} bytes: at most {EXTENSION_MAX} are read",
            entry.size()
        );
        ensure!(
            !kind.is_gnu_sparse(),
            "the guest's archive has a sparse file: it must be written as a plain one"
        );
    }
    archive.seek(io::SeekFrom::Start(start))?;
    Ok(())
}

/// Copies one entry to its targets.
fn take(entry: &mut tar::Entry<'_, &File>, path: &Path, targets: &[Target]) -> Result<()> {
    let (kind, mode) = (entry.header().entry_type(), entry.header().mode().unwrap_or(0o644));
    if kind.is_dir() {
        return targets.iter().try_for_each(|target| target.make());
    }
    if !kind.is_file() {
        ensure!(
            targets.iter().all(|target| !target.is_requested),
            "/{} is neither file nor folder in the guest: give the target of a link",
            path.display()
        );
        if !targets.is_empty() {
            // A link could lead anywhere on the host.
            note(&format!("/{} is neither file nor folder: left in the guest", path.display()));
        }
        return Ok(());
    }
    if let [target] = targets {
        return target.write(mode, entry);
    }
    let mut copy = tempfile::tempfile().context("no room for a file that is requested twice")?;
    io::copy(entry, &mut copy)?;
    for target in targets {
        copy.rewind()?;
        target.write(mode, &mut copy)?;
    }
    Ok(())
}

/// Where an entry goes.
struct Target {
    /// The folder on the host.
    folder: PathBuf,
    /// The path below it.
    below: PathBuf,
    /// The entry is the requested path itself, not one below it.
    is_requested: bool,
}

impl Target {
    /// The target of an entry at or below the requested path. As with `cp -T`, a folder's contents go into the named
    /// folder; as with `cp`, a file keeps its name if the target is an existing folder.
    fn of(out: &Out, entry: &Path, is_folder: bool) -> Option<Self> {
        let below = entry.strip_prefix(out.guest.trim_start_matches('/')).ok()?;
        let is_requested = below.as_os_str().is_empty();
        let (folder, below) = match is_requested && !is_folder {
            false => (out.host.as_path(), below),
            true if out.host.is_dir() => (out.host.as_path(), Path::new(Path::new(&out.guest).file_name()?)),
            true => (out.host.parent()?, Path::new(out.host.file_name()?)),
        };
        Some(Self { folder: folder.into(), below: below.into(), is_requested })
    }

    fn make(&self) -> Result<()> {
        let made = Folder::open(&self.folder).and_then(|folder| folder.create(&self.below));
        made.map(drop).with_context(|| format!("cannot make {}", self.folder.join(&self.below).display()))
    }

    fn write(&self, mode: u32, from: &mut dyn Read) -> Result<()> {
        let written = Folder::open(&self.folder).and_then(|folder| folder.write(&self.below, mode, from));
        written.with_context(|| format!("cannot write {}", self.folder.join(&self.below).display()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn archive(entries: &[(&str, &str)]) -> File {
        let file = tempfile::tempfile().expect("temporary file");
        let mut builder = tar::Builder::new(file);
        for (path, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o750);
            // Straight into the header, because the builder refuses what a hostile guest would write.
            let name = header.as_mut_bytes().get_mut(..path.len()).expect("short");
            name.copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, text.as_bytes()).expect("append");
        }
        let mut file = builder.into_inner().expect("finish");
        // The region is larger than the archive in it.
        let end = file.metadata().expect("metadata").len();
        file.set_len(end + (1 << 20)).expect("grow");
        io::Seek::rewind(&mut file).expect("rewind");
        file
    }

    fn out(guest: &str, host: &Path) -> Out {
        Out { guest: guest.into(), host: host.into() }
    }

    #[test]
    fn files_and_folders_get_their_new_names() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let host = |name: &str| folder.path().join(name);
        let archive = archive(&[("a/x.log", "x"), ("b/one", "1"), ("b/sub/two", "2")]);
        unpack(&archive, &[out("/a/x.log", &host("y.log")), out("/b", &host("dir"))]).expect("all there");
        let read = |name: &str| fs::read_to_string(host(name)).expect(name);
        assert_eq!(
            (read("y.log"), read("dir/one"), read("dir/sub/two")),
            ("x".into(), "1".into(), "2".into())
        );
    }

    #[test]
    fn a_file_into_a_folder_keeps_its_name() {
        let folder = tempfile::tempdir().expect("temporary folder");
        unpack(&archive(&[("a/x.log", "x")]), &[out("/a/x.log", folder.path())]).expect("there");
        assert!(folder.path().join("x.log").exists());
    }

    #[test]
    fn a_file_requested_twice_is_written_twice_with_its_mode() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let host = |name: &str| folder.path().join(name);
        let requested = [out("/a", &host("all")), out("/a/b", &host("part")), out("/a/b/x", &host("one"))];
        unpack(&archive(&[("a/b/x", "text")]), &requested).expect("there");
        for name in ["all/b/x", "part/x", "one"] {
            assert_eq!(fs::read_to_string(host(name)).expect(name), "text");
            assert_eq!(fs::metadata(host(name)).expect(name).permissions().mode() & 0o777, 0o750, "{name}");
        }
    }

    #[test]
    fn a_folders_contents_go_into_an_existing_folder() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut builder = tar::Builder::new(tempfile::tempfile().expect("temporary file"));
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        builder.append_data(&mut header, "var/log", io::empty()).expect("a folder");
        let mut file = builder.into_inner().expect("an archive");
        file.rewind().expect("rewound");
        unpack(&file, &[out("/var/log", folder.path())]).expect("there");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_guest_cannot_write_through_a_link_on_the_host() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (inside, home) = (folder.path().join("results"), folder.path().join("home"));
        fs::create_dir_all(&inside).expect("made");
        fs::create_dir_all(&home).expect("made");
        symlink(&home, inside.join("current")).expect("linked");
        let error =
            unpack(&archive(&[("r/current/.profile", "x")]), &[out("/r", &inside)]).expect_err("a link");
        assert!(error.to_string().contains("current/.profile"), "{error}");
        assert_eq!(fs::read_dir(&home).expect("readable").count(), 0);
    }

    #[test]
    fn a_path_missing_in_the_guest_is_an_error() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = unpack(&archive(&[("a", "x")]), &[out("/b", folder.path())]).expect_err("no b");
        assert!(error.to_string().contains("/b"), "{error}");
    }

    #[test]
    fn a_guest_cannot_write_elsewhere() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let host = folder.path().join("in");
        let hostile = archive(&[("b/../../escape", "x"), ("b/fine", "y")]);
        // It may be refused or skipped, but nothing may appear outside.
        let _ = unpack(&hostile, &[out("/b", &host)]);
        assert!(!folder.path().join("escape").exists());
        assert!(!folder.path().parent().expect("a parent").join("escape").exists());
    }

    #[test]
    fn a_guest_cannot_make_files_without_end() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let requested = [Out { guest: "/d".into(), host: folder.path().join("d") }];
        let names: Vec<_> = (0..=ENTRIES_MAX).map(|number| format!("d/{number}")).collect();
        let entries: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert!(unpack(&archive(&entries[1..]), &requested).is_ok());
        let error = unpack(&archive(&entries), &requested).expect_err("one too many").to_string();
        assert!(error.contains("more than 100 files"), "{error}");
    }

    #[test]
    fn a_guest_cannot_make_the_host_hold_a_long_name() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
            let mut builder = tar::Builder::new(tempfile::tempfile().expect("temporary file"));
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(EXTENSION_MAX + 1);
            header.set_cksum();
            builder.append(&header, io::repeat(b'n').take(EXTENSION_MAX + 1)).expect("append");
            let mut file = builder.into_inner().expect("finish");
            file.rewind().expect("rewind");
            let error = unpack(&file, &[out("/b", folder.path())]).expect_err("too long").to_string();
            assert!(error.contains("a name of 65537 bytes"), "{error}");
        }
    }

    #[test]
    fn a_sparse_file_is_refused_before_its_map_is_read() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut builder = tar::Builder::new(tempfile::tempfile().expect("temporary file"));
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_size(0);
        header.as_gnu_mut().expect("a GNU header").isextended[0] = 1;
        header.set_cksum();
        builder.append(&header, io::empty()).expect("append");
        let mut file = builder.into_inner().expect("finish");
        file.rewind().expect("rewind");
        let error = unpack(&file, &[out("/b", folder.path())]).expect_err("sparse").to_string();
        assert!(error.contains("sparse file"), "{error}");
    }

    #[test]
    fn a_requested_link_is_an_error() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut archive = tar::Builder::new(tempfile::tempfile().expect("temporary file"));
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "b", "/etc/passwd").expect("a link");
        let mut file = archive.into_inner().expect("an archive");
        io::Seek::rewind(&mut file).expect("rewound");
        let error = unpack(&file, &[out("/b", &folder.path().join("b"))]).expect_err("a link");
        assert!(error.to_string().contains("neither file nor folder"), "{error}");
        assert!(!folder.path().join("b").exists());
    }
}
