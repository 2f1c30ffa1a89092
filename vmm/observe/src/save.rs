//! Writing a file in one step, as a reader sees it.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Bytes collected before they are written: reports write millions of short lines.
const BUFFER: usize = 1 << 18;
/// Permissions of a new file, before the caller's umask.
const MODE: u32 = 0o644;

/// Writes `content` to a temporary file beside `path`, then renames it to `path`: a write that fails or is interrupted
/// leaves the file as it was.
///
/// The data is not synced to disk. A caller that needs it to survive a power failure does that in `content`.
///
/// # Errors
/// The temporary file cannot be made, written or renamed; or the error of `content`.
pub fn save_atomically(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>,
) -> io::Result<()> {
    // In the same folder, because a rename does not cross file systems.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(MODE)).tempfile_in(folder)?;
    let mut out = BufWriter::with_capacity(BUFFER, file.as_file_mut());
    content(&mut out)?;
    out.flush()?;
    drop(out);
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_failed_write_leaves_the_earlier_file_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("table.csv");
        save_atomically(&path, |out| out.write_all(b"first")).expect("there is room");
        let failed = save_atomically(&path, |out| {
            out.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(failed.expect_err("no room").kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).expect("it is still there"), b"first");
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 1);
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o700, 0o600);
    }
}
