//! Each test enters the sandbox in a forked child, because there is no way out. A test fails if the child is ended by a signal:
//! what is forbidden must end it with a message, or fail.
#![expect(unsafe_code, reason = "a sandbox needs a process of its own: fork, pipe and wait")]

use std::fs;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::syscalls::{ThreadKind, confine, seal};

/// Status of a child in which everything was as the test expects.
const FINE: i32 = 7;
/// A net against a child that hangs, in seconds.
const LIMIT: u32 = 120;

/// Runs `body` in a child; returns its exit status and what it wrote to standard error.
fn child(body: impl FnOnce() -> bool) -> (i32, String) {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    // SAFETY: the child is a copy with this thread alone; the C library makes its own locks usable there.
    let process = unsafe { libc::fork() };
    assert!(process >= 0, "{}", io::Error::last_os_error());
    if process == 0 {
        // SAFETY: both descriptors are open; alarm and _exit take numbers.
        unsafe {
            libc::dup2(writer.as_raw_fd(), 2);
            libc::alarm(LIMIT);
            libc::_exit(if body() { FINE } else { 1 });
        }
    }
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("text");
    let mut status = 0;
    // SAFETY: the child is ours, and the kernel writes one number.
    assert_eq!(unsafe { libc::waitpid(process, &raw mut status, 0) }, process);
    assert!(libc::WIFEXITED(status), "signal {}: {said}", libc::WTERMSIG(status));
    (libc::WEXITSTATUS(status), said)
}

/// As [`child`], from inside the sandbox.
fn confined(grants: &Grants, programs: Programs, body: impl FnOnce() -> bool) -> (i32, String) {
    child(|| enter(grants, programs).is_ok() && body())
}

/// In a thread of this kind. True if it ends.
fn in_thread(kind: ThreadKind, body: impl FnOnce() + Send + 'static) -> bool {
    let thread = std::thread::spawn(move || {
        confine(kind);
        body();
    });
    thread.join().is_ok()
}

fn refused<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Whether this kernel has what is tested.
fn supported() -> bool {
    let missing = Support::of_this_kernel().missing();
    missing.inspect(|missing| eprintln!("skipped: {missing}")).is_none()
}

#[test]
fn only_granted_files_can_be_used() {
    if !supported() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for name in ["read", "write", "other", "new"] {
        fs::create_dir(path(name)).expect("made");
        fs::write(path(name).join("file"), "old").expect("written");
    }
    fs::write(path("one"), "old").expect("written");
    let mut grants = Grants::default();
    grants.read(path("read"));
    grants.write(path("write"));
    grants.write(path("one"));
    grants.write_at(&path("new/thing")).expect("its folder is there");
    grants.read(path("missing"));
    let (status, said) = confined(&grants, Programs::Never, || {
        let reads = |name: &str| fs::read_to_string(path(name)).is_ok_and(|text| text == "old");
        let make = |name: &str| fs::write(path(name), "new");
        reads("read/file")
            && reads("write/file")
            && refused(fs::read(path("other/file")))
            && refused(fs::read_dir(path("other")))
            && refused(fs::read("/etc/passwd"))
            && refused(make("read/file"))
            && refused(make("read/more"))
            && refused(make("more"))
            && refused(fs::remove_file(path("other/file")))
            && refused(fs::rename(path("write/file"), path("other/moved")))
            && refused(fs::create_dir(path("read/folder")))
            && make("write/more").is_ok()
            && fs::create_dir_all(path("write/a/b")).is_ok()
            && fs::rename(path("write/more"), path("write/a/b/c")).is_ok()
            && fs::remove_file(path("write/a/b/c")).is_ok()
            && make("one").is_ok()
            && make("new/thing").is_ok()
    });
    assert_eq!((status, &*said), (FINE, ""));
}

#[test]
fn all_that_is_below_the_root_can_be_granted() {
    if !supported() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut grants = Grants::default();
    grants.execute("/");
    grants.remove_folders(std::env::temp_dir());
    let (status, said) = confined(&grants, Programs::Never, || {
        let inside = folder.path().join("file");
        fs::read("/etc/passwd").is_ok()
            && refused(fs::write(inside, "x"))
            && fs::remove_dir(folder.path()).is_ok()
    });
    assert_eq!((status, &*said), (FINE, ""));
}

#[test]
fn tcp_is_closed_but_for_a_granted_port() {
    if !supported() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let there = taken.local_addr().expect("an address");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let mut grants = Grants::default();
    grants.listen(free.port());
    let (status, said) = confined(&grants, Programs::Never, || {
        refused(TcpStream::connect(there))
            && refused(TcpListener::bind("127.0.0.1:0"))
            && TcpListener::bind(free).is_ok()
    });
    assert_eq!((status, &*said), (FINE, ""));
    let (status, said) =
        confined(&Grants::default(), Programs::Never, || UdpSocket::bind("127.0.0.1:0").is_ok());
    assert_eq!(status, 125, "{said}");
    assert!(said.contains("does not let the main thread use system call 41 (socket)"), "{said}");
    let (status, _) = confined(&Grants::default(), Programs::Never, || UnixStream::pair().is_ok());
    assert_eq!(status, FINE);
}

#[test]
fn a_program_is_never_executed_by_a_process_that_needs_none() {
    if !supported() {
        return;
    }
    let mut grants = Grants::default();
    grants.execute_system();
    let run = || Command::new("/bin/true").status().is_ok_and(|status| status.success());
    let (status, said) = confined(&grants, Programs::Never, run);
    assert_eq!((status, &*said), (1, ""));
    let (status, said) = confined(&grants, Programs::UntilSealed, run);
    assert_eq!((status, &*said), (FINE, ""));
    let (status, said) = confined(&grants, Programs::UntilSealed, || run() && seal().is_ok() && !run());
    assert_eq!((status, &*said), (FINE, ""));
    let (status, said) = confined(&grants, Programs::Never, || {
        drop(Command::new("/bin/true").exec());
        true
    });
    assert_eq!(status, 125, "{said}");
    assert!(said.contains("does not let the main thread use system call 59 (execve)"), "{said}");
}

#[test]
fn a_started_program_inherits_what_is_forbidden() {
    if !supported() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (secret, own) = (folder.path().join("secret"), folder.path().join("own"));
    fs::write(&secret, "x").expect("written");
    fs::write(&own, "x").expect("written");
    let mut grants = Grants::default();
    grants.execute_system();
    grants.write(&own);
    let shell = |text: String| {
        Command::new("/bin/sh").args(["-c", &text]).status().is_ok_and(|status| status.success())
    };
    let shown = |path: &Path| path.display().to_string();
    let (status, said) = confined(&grants, Programs::UntilSealed, || {
        shell(format!("cat {} >/dev/null", shown(&own)))
            && !shell(format!("cat {} >/dev/null", shown(&secret)))
            && !shell("unshare --user true".into())
            && shell("test $(ulimit -c) = 0".into())
    });
    assert_eq!(status, FINE, "{said}");
    assert!(said.contains("Permission denied") && said.contains("Operation not permitted"), "{said}");
}

#[test]
fn each_kind_of_thread_has_less_than_the_process() {
    if !supported() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "x").expect("written");
    let mut grants = Grants::default();
    grants.write(folder.path());
    let kinds = [
        (ThreadKind::Vcpu, "a vCPU's thread"),
        (ThreadKind::Device, "a device's thread"),
        (ThreadKind::Storage, "the thread for persistent memory"),
        (ThreadKind::Output, "a thread for output"),
    ];
    for (kind, name) in kinds {
        let (status, said) = child(|| {
            let open = fs::File::options().write(true).open(&file);
            let (Ok(open), true) = (open, enter(&grants, Programs::Never).is_ok()) else { return false };
            let (again, copy) = (file.clone(), open.try_clone());
            // Opening fails as for a file that is not granted, though it is; writing what is open works.
            in_thread(kind, move || {
                let mut open = &open;
                assert!(refused(fs::File::open(&again)) && io::Write::write(&mut open, b"y").is_ok());
                drop(vec![1u8; 64 << 20]);
            }) && fs::read(&file).is_ok()
                && (kind == ThreadKind::Storage) == in_storage(kind, copy)
        });
        match kind {
            ThreadKind::Storage => assert_eq!((status, &*said), (FINE, "")),
            _ => {
                assert_eq!(status, 125, "{name}: {said}");
                assert!(
                    said.contains(&format!("does not let {name} use system call 75 (fdatasync)")),
                    "{said}"
                );
            }
        }
        let spawn = || std::thread::Builder::new().spawn(|| {}).is_err();
        let (status, said) = confined(&grants, Programs::Never, || in_thread(kind, move || assert!(spawn())));
        assert_eq!((status, &*said), (FINE, ""), "{name}");
    }
    let (status, said) = confined(&grants, Programs::Never, || {
        let again = file.clone();
        in_thread(ThreadKind::Other, move || drop(fs::read(&again).expect("granted")))
    });
    assert_eq!((status, &*said), (FINE, ""));
}

/// Writes a file out in a thread of this kind.
fn in_storage(kind: ThreadKind, file: io::Result<fs::File>) -> bool {
    in_thread(kind, move || file.and_then(|file| file.sync_data()).expect("written"))
}

#[test]
fn no_thread_types_into_the_users_terminal_or_maps_new_code() {
    if !supported() {
        return;
    }
    let calls: [(&str, fn()); 4] = [
        // SAFETY: the kernel reads one byte, which is alive.
        ("16 (ioctl)", || _ = unsafe { libc::ioctl(0, libc::TIOCSTI, b"x".as_ptr()) }),
        ("9 (mmap)", || {
            let (access, kind) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new mapping, which is not used.
            let _ = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, kind, -1, 0) };
        }),
        // SAFETY: both take numbers.
        ("101 (ptrace)", || _ = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }),
        // SAFETY: as above.
        ("234 (tgkill)", || _ = unsafe { libc::syscall(libc::SYS_tgkill, 1, 1, 0) }),
    ];
    for (call, body) in calls {
        let (status, said) = confined(&Grants::default(), Programs::Never, || {
            body();
            true
        });
        assert_eq!(status, 125, "{call}: {said}");
        assert!(said.contains(call) && said.contains("--no-sandbox"), "{said}");
    }
}

#[test]
fn messages_are_written_before_and_after() {
    if !supported() {
        return;
    }
    let (status, said) = child(|| {
        note("before");
        let entered = enter(&Grants::default(), Programs::Never).is_ok();
        note("after");
        entered && in_thread(ThreadKind::Vcpu, || note("from a vCPU"))
    });
    assert_eq!((status, &*said), (FINE, "refault: before\nrefault: after\nrefault: from a vCPU\n"));
}

#[test]
fn an_error_inside_has_a_hint_and_one_outside_has_none() {
    if !supported() {
        return;
    }
    let error =
        || anyhow::Error::new(fs::read("/etc/passwd").expect_err("not granted")).context("cannot read");
    let (status, _) = confined(&Grants::default(), Programs::Never, || hint(&error()).is_some());
    assert_eq!(status, FINE);
    assert_eq!(hint(&anyhow::Error::new(io::Error::from(ErrorKind::PermissionDenied))), None);
}

#[test]
fn a_kernel_that_lacks_something_is_told_how_to_get_it() {
    let missing = |landlock, seccomp| Support { landlock, seccomp }.missing();
    assert_eq!(missing(1, true), None);
    let both = missing(0, false).expect("both are missing");
    assert!(both.contains("CONFIG_SECURITY_LANDLOCK") && both.contains("CONFIG_SECCOMP_FILTER"), "{both}");
    assert!(!missing(0, true).expect("Landlock is missing").contains("seccomp"));
}
