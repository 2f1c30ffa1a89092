//! The build cache: finished stages, each under a key derived from its ingredients.
//!
//! A stage is built in a work folder and renamed when it is complete, so a build that ends early leaves either the
//! whole stage or none. The next build removes leftovers. A build holds the lock; readers need none, since a
//! finished stage never changes.

use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};

use refault_os::message::Progress;

/// Variable that overrides the location of the cache.
pub const CACHE_VARIABLE: &str = "REFAULT_CACHE";
/// Finished stages of one name that are kept, newest first.
const KEPT: usize = 3;

/// A digest of a stage's ingredients.
#[derive(Clone, Debug)]
pub struct CacheKey(Sha256);

impl CacheKey {
    /// A key for the stage `name`.
    pub fn new(name: &str) -> Self {
        Self(Sha256::new()).with("stage", name.as_bytes())
    }

    /// Adds an ingredient. Its label and length are part of the digest, so that adjacent ingredients stay distinct.
    pub fn with(mut self, label: &str, bytes: impl AsRef<[u8]>) -> Self {
        for part in [label.as_bytes(), bytes.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// Adds a list whose order does not matter.
    pub fn with_all(self, label: &str, items: &[&str]) -> Self {
        let mut items = items.to_vec();
        items.sort_unstable();
        self.with(label, items.join("\n"))
    }

    /// Adds every file below `folder`: names, modes and contents. A missing folder counts as an ingredient too.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn with_tree(mut self, label: &str, folder: &Path) -> Result<Self> {
        for file in files_below(folder)? {
            let name = file.strip_prefix(folder).unwrap_or(&file).to_string_lossy().into_owned();
            let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            self = self.with(label, name).with("contents", bytes);
        }
        Ok(self)
    }

    /// The first sixteen hex digits of the digest.
    pub fn hex(&self) -> String {
        self.0.clone().finalize().iter().take(8).fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// Regular files below `folder`, sorted by path; empty if it does not exist.
///
/// # Errors
/// A folder cannot be listed.
pub fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot list {}", folder.display())),
        };
        for entry in entries {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The location of the cache: `$REFAULT_CACHE`, otherwise `refault` in the user's cache folder.
///
/// # Errors
/// No variable names a location, not even `HOME`.
pub fn location() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable(CACHE_VARIABLE)
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("refault")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/refault")))
        .map(|path| std::path::absolute(&path).unwrap_or(path))
        .ok_or_else(|| anyhow!("no place for the guest image: set {CACHE_VARIABLE} to a folder"))
}

/// The cache, locked for building.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    progress: Progress,
    _lock: File,
}

impl Cache {
    /// Locks the cache, waiting for another build to end, and removes leftovers of a killed build.
    ///
    /// # Errors
    /// The folder cannot be created or locked.
    pub fn open(root: &Path, progress: &Progress) -> Result<Self> {
        let made = fs::create_dir_all(root.join("stages"));
        made.with_context(|| format!("cannot make the cache folder {}", root.display()))?;
        let path = root.join("lock");
        let lock = File::options().create(true).append(true).open(&path);
        let lock = lock.with_context(|| format!("cannot open {}", path.display()))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            progress.step("another build is running: waiting for it");
        }
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        let cache = Self { root: root.to_path_buf(), progress: progress.clone(), _lock: lock };
        cache.sweep()?;
        Ok(cache)
    }

    /// The folder for data kept between builds, such as package lists.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The finished stage `name` for `key`; unless it exists, `build` creates it in the folder passed to it.
    ///
    /// # Errors
    /// The error of `build`; nothing is left of the stage then.
    pub fn stage(
        &self,
        name: &str,
        key: &CacheKey,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let stage = stage_path(&self.root, name, key);
        if stage.is_dir() {
            // Stages are pruned by time of last use; a cache that cannot be written is not an error here.
            let _ = File::open(&stage).and_then(|folder| folder.set_modified(SystemTime::now()));
            return Ok(stage);
        }
        let work = self.work().join(format!("{name}-{}", key.hex()));
        let built = fs::create_dir_all(&work).map_err(Into::into).and_then(|()| build(&work));
        let kept = built.and_then(|()| fs::rename(&work, &stage).map_err(Into::into));
        if let Err(error) = kept {
            remove(&work)?;
            return Err(
                error.context(format!("building {name} for the guest image in {}", self.root.display()))
            );
        }
        self.prune(name, &stage)?;
        Ok(stage)
    }

    /// Removes a finished stage.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget(&self, name: &str, key: &CacheKey) -> Result<()> {
        self.discard(&stage_path(&self.root, name, key))
    }

    /// Renames a stage first, and then removes its files: an interruption must not leave half a stage.
    fn discard(&self, stage: &Path) -> Result<()> {
        if !stage.exists() {
            return Ok(());
        }
        let aside = self.work().join("discarded");
        remove(&aside)?;
        fs::create_dir_all(self.work())?;
        fs::rename(stage, &aside).with_context(|| format!("cannot remove {}", stage.display()))?;
        remove(&aside)
    }

    fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    fn sweep(&self) -> Result<()> {
        if fs::read_dir(self.work()).is_ok_and(|mut left| left.next().is_some()) {
            self.progress.step("removing what an interrupted build left behind");
        }
        remove(&self.work())
    }

    /// Removes the least recently used stages of `name`.
    fn prune(&self, name: &str, newest: &Path) -> Result<()> {
        let mut old = Vec::new();
        for entry in fs::read_dir(self.root.join("stages"))? {
            let path = entry?.path();
            let stem = path.file_name().and_then(|file| file.to_str()).and_then(|file| file.rsplit_once('-'));
            if path != newest && stem.is_some_and(|(stem, _)| stem == name) {
                old.push((path.metadata()?.modified()?, path));
            }
        }
        old.sort();
        let surplus = (old.len() + 1).saturating_sub(KEPT);
        old.iter().take(surplus).try_for_each(|(_, path)| self.discard(path))
    }
}

/// The path of a finished stage, whether it exists or not.
pub fn stage_path(root: &Path, name: &str, key: &CacheKey) -> PathBuf {
    root.join("stages").join(format!("{name}-{}", key.hex()))
}

/// Removes a folder with everything in it, read-only folders included.
///
/// # Errors
/// A file or folder in it cannot be removed.
pub fn remove(folder: &Path) -> Result<()> {
    if fs::remove_dir_all(folder).is_ok() || !folder.exists() {
        return Ok(());
    }
    make_writable(folder);
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// Gives the owner all rights on the folders below, where possible.
fn make_writable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o755));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn cache(folder: &tempfile::TempDir) -> Cache {
        Cache::open(folder.path(), &Progress::new("test")).expect("an empty cache opens")
    }

    #[test]
    fn a_key_depends_on_every_ingredient_and_nothing_else() {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::write(folder.path().join("a.c"), "one").expect("write");
        let key = || CacheKey::new("driver").with_tree("source", folder.path()).expect("readable").hex();
        let before = key();
        assert_eq!(before, key());
        fs::write(folder.path().join("a.c"), "two").expect("write");
        assert_ne!(before, key());
        assert_ne!(CacheKey::new("a").with("b", "cd").hex(), CacheKey::new("a").with("bc", "d").hex());
        assert_eq!(
            CacheKey::new("a").with_all("p", &["x", "y"]).hex(),
            CacheKey::new("a").with_all("p", &["y", "x"]).hex()
        );
    }

    #[test]
    fn a_stage_is_built_once_for_a_key() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let cache = cache(&folder);
        let mut builds = 0;
        for version in ["1", "1", "2"] {
            let key = CacheKey::new("root").with("version", version);
            let stage = cache.stage("root", &key, |work| {
                builds += 1;
                Ok(fs::write(work.join("file"), version)?)
            });
            let file = stage.expect("it builds").join("file");
            assert_eq!(fs::read_to_string(file).expect("file"), version);
        }
        assert_eq!(builds, 2);
    }

    #[test]
    fn a_failed_build_leaves_nothing() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let cache = cache(&folder);
        let failed = cache.stage("root", &CacheKey::new("root"), |work| {
            fs::write(work.join("half"), "made")?;
            bail!("no more")
        });
        assert!(failed.is_err());
        assert_eq!(files_below(folder.path()).expect("readable"), [folder.path().join("lock")]);
    }

    #[test]
    fn leftovers_of_a_killed_build_are_removed_and_never_used() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let key = CacheKey::new("root");
        // The state after a killed build: its work folder exists, the rename did not happen.
        let left = folder.path().join("work").join(format!("root-{}", key.hex()));
        fs::create_dir_all(&left).expect("folder");
        fs::write(left.join("half"), "made").expect("file");
        let cache = cache(&folder);
        assert!(!left.exists());
        let stage = cache.stage("root", &key, |_| Ok(())).expect("it builds");
        assert!(!stage.join("half").exists());
    }

    #[test]
    fn old_stages_are_pruned_and_the_new_one_stays() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let cache = cache(&folder);
        let build = |version: &str| {
            let key = CacheKey::new("root").with("version", version);
            cache.stage("root", &key, |_| Ok(())).expect("it builds")
        };
        let other = cache.stage("root-other", &CacheKey::new("o"), |_| Ok(())).expect("it builds");
        let stages: Vec<_> = ["1", "2", "3", "4", "5"].map(build).into();
        assert_eq!(stages.iter().filter(|stage| stage.exists()).count(), KEPT);
        assert!(stages.last().is_some_and(|stage| stage.exists()) && other.exists());
    }

    #[test]
    fn two_builds_do_not_run_at_once() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let first = cache(&folder);
        let lock = File::options().append(true).open(folder.path().join("lock")).expect("lock file");
        assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
        drop(first);
        assert!(lock.try_lock().is_ok());
    }
}
