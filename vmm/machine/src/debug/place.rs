//! Checks of host resources before the guest boots, rather than when it has crashed.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};

/// The folder that contains `file`.
pub(super) fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Checks that a core can be written to this path.
///
/// # Errors
/// It is a folder, or its folder is not writable.
pub fn check_place(file: &Path) -> Result<()> {
    anyhow::ensure!(!file.is_dir(), "--dump {}: this is a folder; give a file in it", file.display());
    let folder = folder_of(file);
    tempfile::tempfile_in(folder)
        .map(drop)
        .with_context(|| format!("--dump: cannot write to {}", folder.display()))
}

/// Listens for gdb on `port` of the loopback interface.
///
/// # Errors
/// The port is in use, or needs more privileges.
pub fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("--gdb: cannot listen on 127.0.0.1:{port}; give --gdb another PORT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_is_named() {
        let error = check_place(Path::new("/nonexistent/core")).expect_err("no folder").to_string();
        assert!(error.contains("/nonexistent"), "{error}");
        assert!(check_place(&std::env::temp_dir()).is_err());
        assert!(check_place(&std::env::temp_dir().join("core")).is_ok());
    }

    #[test]
    fn a_port_in_use_is_named_with_the_remedy() {
        let taken = listen(0).expect("a free port");
        let port = taken.local_addr().expect("an address").port();
        let error = listen(port).expect_err("taken").to_string();
        assert!(error.contains(&port.to_string()) && error.contains("another PORT"), "{error}");
    }
}
