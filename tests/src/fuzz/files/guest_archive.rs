//! The archive that comes out of a guest: any bytes, or an archive with entries of any kind, name and size.
//!
//! **Invariant.** Files appear only below the paths that the user named, none of them is a link, and all together they are
//! no larger than the archive, once for each path that names them.

use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use refault_vmm::run::from_guest::unpack;
use refault_vmm::run::options::parse::Out;
use tempfile::{TempDir, tempdir, tempfile};

use crate::fuzz::feed::Feed;

const NAMES: &[&str] = &[
    "a", "a/x", "a/x/y", "a/../b", "../a/x", "/a/x", "a//x", "a/.", "./a", "b", "a/link", "a/link/x", "",
    "a/\u{e9}",
];
const KINDS: &[u8] = b"00005123467LKSxg\0";
/// An octal size that the header of an archive can claim.
const SIZES: &[&[u8]] =
    &[b"00000000000", b"00000000007", b"00000001000", b"77777777777", b"-0000000001", b"\x80\0\0\xff"];

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let content = if feed.flag() { archive(&mut feed) } else { feed.rest().to_vec() };
    let mut file = tempfile().expect("a temporary file");
    file.write_all(&content).and_then(|()| file.rewind()).expect("room");
    let outer = tempdir().expect("a temporary folder");
    let inside = outer.path().join("inside");
    fs::create_dir(&inside).expect("room");
    let out = |guest: &str, host: &str| Out { guest: guest.into(), host: inside.join(host) };
    let requested = [out("/a", "all"), out("/a/x", "one")];
    let _ = unpack(&file, &requested);
    let others: Vec<_> = files(outer.path()).into_iter().filter(|path| !path.starts_with(&inside)).collect();
    assert!(others.is_empty(), "files outside: {others:?}");
    let mut total = 0;
    for path in files(&inside) {
        let metadata = fs::symlink_metadata(&path).expect("there");
        assert!(metadata.is_file(), "{} is no plain file", path.display());
        total += metadata.len();
    }
    assert!(total <= 2 * content.len() as u64, "{total} bytes from {}", content.len());
    keep_out_of(&outer);
}

/// The folder that holds all temporary ones gets nothing else.
fn keep_out_of(outer: &TempDir) {
    static BESIDE: OnceLock<PathBuf> = OnceLock::new();
    let beside = BESIDE.get_or_init(|| outer.path().with_file_name("b"));
    assert!(!beside.exists(), "{} appeared", beside.display());
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        let is_folder = fs::symlink_metadata(&path).expect("there").is_dir();
        if is_folder { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// An archive, with correct checksums for the most part.
fn archive(feed: &mut Feed<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    while !feed.is_empty() && all.len() < 64 << 10 {
        let shape = feed.byte();
        let mut header = [0; 512];
        put(&mut header, 0, feed.pick(NAMES).as_bytes());
        put(&mut header, 100, b"0000755");
        let data = feed.bytes(255);
        let size = format!("{:011o}", data.len());
        put(&mut header, 124, if shape & 7 == 0 { feed.pick(SIZES) } else { size.as_bytes() });
        header[156] = feed.pick(KINDS);
        put(&mut header, 157, feed.pick(NAMES).as_bytes());
        put(&mut header, 257, if shape & 8 == 0 { b"ustar\x0000" } else { b"ustar  \0" });
        if shape & 0x30 == 0x30 {
            let at = usize::from(feed.half()) % 480;
            put(&mut header, at, feed.bytes(32));
        }
        put(&mut header, 148, b"        ");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        put(&mut header, 148, format!("{:06o}\0 ", sum ^ u32::from(shape >> 7)).as_bytes());
        all.extend(header);
        all.extend(data);
        all.resize(all.len().next_multiple_of(512), 0);
    }
    if all.len() % 3 != 0 {
        all.resize(all.len() + 1024, 0);
    }
    all
}

fn put(header: &mut [u8; 512], at: usize, bytes: &[u8]) {
    header[at..at + bytes.len()].copy_from_slice(bytes);
}
