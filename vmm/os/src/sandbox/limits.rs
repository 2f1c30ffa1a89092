//! Resource limits of a process in the sandbox, and no new privileges by set-id programs. Its children inherit both.
//!
//! There is none for the size of files: standard output may be one, and a guest's output has no limit by itself. There is none
//! for the number of processes: the kernel counts all processes of the user, and root's not at all; the filters for system
//! calls forbid new processes instead.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::set_no_new_privs;

/// Sets the limits.
pub(super) fn apply() -> io::Result<()> {
    set_no_new_privs(true)?;
    // A core would have the guest's memory and ours, in whatever folder is the current one.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // Descriptors cannot be added without limit by raising the soft limit.
    let files = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { maximum: files.current, ..files })?)
}
