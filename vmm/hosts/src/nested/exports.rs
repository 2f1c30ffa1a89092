//! What a nested machine may write of the host's files: a few folders, each a 9p share of its own over the read-only root.
//!
//! A share is a folder. That a machine may write a single file of it only is for the sandbox around QEMU.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

use crate::emulation::doubled_commas;

/// As in outer-init.sh, which mounts the root.
const OPTIONS: &std::ffi::CStr = c"trans=virtio,version=9p2000.L,access=any,cache=loose,msize=512000";

/// The folders of the host that can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exports {
    /// All: there is no sandbox.
    All,
    /// These, by their real paths, none below another.
    Only(Vec<PathBuf>),
}

impl Exports {
    /// The folders of these files and folders. One that does not exist is left out.
    pub(super) fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let folder = |path: &Path| {
            let path = path.canonicalize().ok()?;
            if path.is_dir() { Some(path) } else { path.parent().map(Path::to_path_buf) }
        };
        let mut folders: Vec<_> = paths.into_iter().filter_map(folder).collect();
        // A folder comes before those below it.
        folders.sort();
        folders.dedup_by(|below, above| below.starts_with(above));
        Self::Only(folders)
    }

    /// The folders besides the root.
    pub(super) fn folders(&self) -> &[PathBuf] {
        match self {
            Self::All => &[],
            Self::Only(folders) => folders,
        }
    }

    /// Adds the shares to QEMU's command line.
    pub(super) fn add(&self, command: &mut Command) {
        let share = |path: &Path, tag: &str, more: &str| {
            let mut share = OsString::from(format!(
                "local,mount_tag={tag},security_model=none,multidevs=remap{more},path="
            ));
            share.push(doubled_commas(path.as_os_str()));
            share
        };
        let read_only = if *self == Self::All { "" } else { ",readonly=on" };
        command.arg("-virtfs").arg(share(Path::new("/"), "root", read_only));
        for (index, folder) in self.folders().iter().enumerate() {
            command.arg("-virtfs").arg(share(folder, &tag(index), ""));
        }
    }
}

fn tag(index: usize) -> String {
    format!("write{index}")
}

/// Mounts the shares, inside the nested machine.
///
/// # Errors
/// The machine has no such share, or no such folder.
pub(super) fn mount_all(folders: &[PathBuf]) -> Result<()> {
    for (index, folder) in folders.iter().enumerate() {
        // Below /dev and the like the nested machine has its own file systems.
        let _ = std::fs::create_dir_all(folder);
        mount(tag(index), folder, "9p", MountFlags::empty(), OPTIONS).with_context(|| {
            format!("cannot mount {} for writing in the emulated machine", folder.display())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(exports: &Exports) -> Vec<String> {
        let mut command = Command::new("qemu");
        exports.add(&mut command);
        command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_root_is_read_only_and_a_folder_in_another_is_not_shared_twice() {
        let root = tempfile::tempdir().expect("a folder");
        let at = |name: &str| root.path().canonicalize().expect("it exists").join(name);
        for name in ["b/in/deep", "a,x", "b-not-in"] {
            std::fs::create_dir_all(at(name)).expect("made");
        }
        std::fs::write(at("b/file"), "").expect("written");
        let given = [at("b/in"), at("a,x"), at("b/file"), at("b/in/deep"), at("missing"), at("b-not-in")];
        let exports = Exports::of(given.iter().map(PathBuf::as_path));
        assert_eq!(exports.folders(), [at("a,x"), at("b"), at("b-not-in")]);
        let shares = arguments(&exports);
        assert!(shares[1].contains("readonly=on,path=/"), "{shares:?}");
        assert!(shares[3].contains("mount_tag=write0") && shares[3].ends_with("a,,x"), "{shares:?}");
        assert!(!shares[3].contains("readonly"), "{shares:?}");
        assert_eq!(arguments(&Exports::All).iter().filter(|share| share.contains("readonly")).count(), 0);
    }
}
