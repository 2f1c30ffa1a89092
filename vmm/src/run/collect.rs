//! Files from the guest: a tar archive in a memory region, taken apart with the distrust a guest deserves.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::options::parse::Out;
use refault_os::confined::Folder;
use refault_os::message::note;

/// Most entries that are taken: a guest could fill the host's file system with empty files.
const ENTRIES_MAX: usize = 100_000;

/// Copies what `wanted` names out of the archive, to each that wants it.
///
/// # Errors
/// The archive is broken, a wanted path is not in it, or the host's side cannot be written.
pub(super) fn unpack(archive: &File, wanted: &[Out]) -> Result<()> {
    let size = archive.metadata()?.len();
    let mut found = vec![false; wanted.len()];
    let mut archive = tar::Archive::new(archive);
    for (count, entry) in archive.entries()?.enumerate() {
        ensure!(count < ENTRIES_MAX, "more than {ENTRIES_MAX} files: let the guest make one archive of them");
        let mut entry = entry.context("what the guest collected is no archive")?;
        let path = entry.path()?.into_owned();
        let mut targets = Vec::new();
        for (out, found) in wanted.iter().zip(&mut found) {
            let Some(target) = Target::of(out, &path, entry.header().entry_type().is_dir()) else { continue };
            *found = true;
            targets.push(target);
        }
        ensure!(
            entry.size() <= size,
            "the guest claims {} bytes for {}: more than it had room for",
            entry.size(),
            path.display()
        );
        take(&mut entry, &path, &targets)?;
    }
    match wanted.iter().zip(&found).find(|(_, found)| !**found) {
        None => Ok(()),
        Some((out, _)) => bail!("the guest has no {}", out.guest),
    }
}

/// Copies one entry to its targets.
fn take(entry: &mut tar::Entry<'_, &File>, path: &Path, targets: &[Target]) -> Result<()> {
    let (kind, mode) = (entry.header().entry_type(), entry.header().mode().unwrap_or(0o644));
    if kind.is_dir() {
        return targets.iter().try_for_each(|target| target.make());
    }
    if !kind.is_file() {
        ensure!(
            targets.iter().all(|target| !target.is_wanted),
            "/{} is neither file nor folder in the guest: name what a link leads to",
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
    let mut copy = tempfile::tempfile().context("no place for a file that is wanted twice")?;
    io::copy(entry, &mut copy)?;
    for target in targets {
        copy.rewind()?;
        target.write(mode, &mut copy)?;
    }
    Ok(())
}

/// Where an entry goes.
struct Target {
    /// The folder that the user named.
    folder: PathBuf,
    /// In it.
    below: PathBuf,
    /// It is what the user named, and not below that.
    is_wanted: bool,
}

impl Target {
    /// For the wanted path and what is below it. As with `cp -T` a folder's contents go into the folder that is named, and
    /// as with `cp` a file keeps its name in one that is there.
    fn of(out: &Out, entry: &Path, is_folder: bool) -> Option<Self> {
        let below = entry.strip_prefix(out.guest.trim_start_matches('/')).ok()?;
        let is_wanted = below.as_os_str().is_empty();
        let (folder, below) = match is_wanted && !is_folder {
            false => (out.host.as_path(), below),
            true if out.host.is_dir() => (out.host.as_path(), Path::new(Path::new(&out.guest).file_name()?)),
            true => (out.host.parent()?, Path::new(out.host.file_name()?)),
        };
        Some(Self { folder: folder.into(), below: below.into(), is_wanted })
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
            // Straight into the header, for the builder refuses what a hostile guest would write.
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
    fn files_and_folders_come_out_under_their_new_names() {
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
    fn each_that_wants_a_file_gets_it_with_its_mode() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let host = |name: &str| folder.path().join(name);
        let wanted = [out("/a", &host("all")), out("/a/b", &host("part")), out("/a/b/x", &host("one"))];
        unpack(&archive(&[("a/b/x", "text")]), &wanted).expect("there");
        for name in ["all/b/x", "part/x", "one"] {
            assert_eq!(fs::read_to_string(host(name)).expect(name), "text");
            assert_eq!(fs::metadata(host(name)).expect(name).permissions().mode() & 0o777, 0o750, "{name}");
        }
    }

    #[test]
    fn a_folders_contents_go_into_one_that_is_there() {
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
    fn a_guest_cannot_write_through_a_link_of_the_hosts() {
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
    fn what_the_guest_has_not_is_an_error() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let error = unpack(&archive(&[("a", "x")]), &[out("/b", folder.path())]).expect_err("no b");
        assert!(error.to_string().contains("/b"), "{error}");
    }

    #[test]
    fn a_guest_cannot_write_elsewhere() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let host = folder.path().join("in");
        let hostile = archive(&[("b/../../escape", "x"), ("b/fine", "y")]);
        // Whether it is refused or left out, nothing may appear outside.
        let _ = unpack(&hostile, &[out("/b", &host)]);
        assert!(!folder.path().join("escape").exists());
        assert!(!folder.path().parent().expect("a parent").join("escape").exists());
    }

    #[test]
    fn a_link_that_was_asked_for_is_an_error() {
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
