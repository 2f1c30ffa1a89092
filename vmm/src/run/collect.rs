//! Files from the guest: a tar archive in a memory region, taken apart with the distrust a guest deserves.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use super::parse::Out;
use crate::host::say::note;

/// Copies what `wanted` names out of the archive.
///
/// # Errors
/// The archive is broken, a wanted path is not in it, or the host's side cannot be written.
pub(super) fn unpack(archive: &File, wanted: &[Out]) -> Result<()> {
    let size = archive.metadata()?.len();
    let mut found = vec![false; wanted.len()];
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry.context("what the guest collected is no archive")?;
        let path = entry.path()?.into_owned();
        for (out, found) in wanted.iter().zip(&mut found) {
            let Some(target) = target(out, &path) else { continue };
            *found = true;
            let kind = entry.header().entry_type();
            if entry.size() > size {
                bail!(
                    "the guest claims {} bytes for {}: more than it had room for",
                    entry.size(),
                    path.display()
                );
            }
            if kind.is_dir() {
                fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
            } else if kind.is_file() {
                write_whole(&mut entry, &target)?;
            } else if path.as_path() == Path::new(out.guest.trim_start_matches('/')) {
                bail!("{} is neither file nor folder in the guest: name what a link leads to", out.guest);
            } else {
                // A link could lead anywhere on the host.
                note(&format!("/{} is neither file nor folder: left in the guest", path.display()));
            }
        }
    }
    match wanted.iter().zip(&found).find(|(_, found)| !**found) {
        None => Ok(()),
        Some((out, _)) => bail!("the guest has no {}", out.guest),
    }
}

/// Where an entry goes, if it is the wanted path or below it.
fn target(out: &Out, entry: &Path) -> Option<PathBuf> {
    let below = entry.strip_prefix(out.guest.trim_start_matches('/')).ok()?;
    if below.components().any(|part| !matches!(part, Component::Normal(_))) {
        return None;
    }
    let name = Path::new(&out.guest).file_name()?;
    Some(match (below.as_os_str().is_empty(), out.host.is_dir()) {
        (true, true) => out.host.join(name),
        (true, false) => out.host.clone(),
        (false, _) => out.host.join(below),
    })
}

/// Either the whole file is there in the end, or nothing.
fn write_whole(from: &mut impl Read, target: &Path) -> Result<()> {
    let cannot = || format!("cannot write {}", target.display());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(cannot)?;
    let mut file = NamedTempFile::new_in(folder).with_context(cannot)?;
    io::copy(from, &mut file).with_context(cannot)?;
    let file = file.persist(target).with_context(cannot)?;
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644)).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &str)]) -> File {
        let file = tempfile::tempfile().expect("temporary file");
        let mut builder = tar::Builder::new(file);
        for (path, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o600);
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
