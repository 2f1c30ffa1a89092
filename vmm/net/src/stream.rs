//! Frames in a stream between two processes of a host, each with its length in front.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use refault_bus::sync::lock;
use refault_os::message::note;

use crate::address::Address;
use crate::line::{FRAME_MAX, Line, TICK};
use crate::queue::Queue;

/// Bytes of a length.
const LENGTH: usize = 4;
/// Bytes read at once.
const READ_MAX: usize = 256 << 10;
/// Frames written at once, besides the first.
const BATCH: usize = 32;
/// Connections that are reported; later ones come and go in silence.
const REPORTED: u32 = 16;

/// The two ways to meet.
enum Role {
    /// The first to come. It holds a lock beside the socket, so that what a killed process left is known to be stale.
    Listens {
        listener: UnixListener,
        _lock: File,
    },
    Connects,
}

/// A place in the file system where two processes meet.
pub(crate) struct Rendezvous {
    path: PathBuf,
    role: Role,
    peer: Arc<Peer>,
}

/// The other side, while it is there.
#[derive(Default)]
pub(crate) struct Peer {
    stream: Mutex<Option<Arc<UnixStream>>>,
    came: Condvar,
}

impl Rendezvous {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let rendezvous = |role| Self { path: path.to_owned(), role, peer: Arc::default() };
        let lock_path = path.with_added_extension("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.with_context(|| format!("cannot make {}", lock_path.display()))?;
        if lock.try_lock().is_err() {
            return Ok(rendezvous(Role::Connects));
        }
        match UnixStream::connect(path) {
            // Another program listens here, which knows no lock.
            Ok(_) => Ok(rendezvous(Role::Connects)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Err(error).context("this user may not use that socket")
            }
            Err(_) => Ok(rendezvous(Role::Listens { listener: listen(path)?, _lock: lock })),
        }
    }

    /// Whether this is the side that listens.
    pub(crate) fn listens(&self) -> bool {
        matches!(self.role, Role::Listens { .. })
    }

    /// The other side, for the thread that writes.
    pub(crate) fn peer(&self) -> Arc<Peer> {
        self.peer.clone()
    }

    /// Meets the other side, again and again, and reads frames, until the outlet ends.
    pub(crate) fn run(self, line: &Line, address: &Address) {
        let mut reported = 0;
        let mut report = |text: &str| {
            reported += 1;
            if reported <= REPORTED {
                note(&format!("{address}: {text}"));
            }
        };
        while let Some(stream) = self.meet(line) {
            report("connected");
            line.wire.set_signal(true);
            let end = self.read(&stream, line);
            line.wire.set_signal(false);
            self.peer.leave();
            line.queue.clear();
            match end {
                End::Outlet => break,
                End::Down => {}
                End::Left => report("the other side has left"),
                End::Nonsense(length) => report(&format!(
                    "the other side sends a frame of {length} bytes, and none has more than {FRAME_MAX}: hung up. Is \
                     this the right socket?"
                )),
            }
        }
        if let Role::Listens { .. } = self.role {
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_file(self.path.with_added_extension("lock"));
        }
    }

    /// The next connection; `None` when the outlet ends.
    fn meet(&self, line: &Line) -> Option<Arc<UnixStream>> {
        loop {
            if line.queue.has_ended() {
                return None;
            }
            if let Some(stream) = &*lock(&self.peer.stream) {
                return Some(stream.clone());
            }
            // The far end hears of a signal only when both give one.
            if !line.queue.has_carrier() {
                thread::sleep(TICK);
                continue;
            }
            let stream = match &self.role {
                Role::Listens { listener, .. } => {
                    line.wait(listener)?;
                    listener.accept().map(|(stream, _)| stream)
                }
                Role::Connects => {
                    thread::sleep(TICK);
                    UnixStream::connect(&self.path)
                }
            };
            if let Ok(stream) = stream {
                // Of one that listens without blocking it may be inherited.
                let _ = stream.set_nonblocking(false);
                self.peer.arrive(stream);
            }
        }
    }

    /// Reads frames from the other side.
    fn read(&self, mut stream: &UnixStream, line: &Line) -> End {
        let mut kept = Vec::new();
        let mut chunk = vec![0; READ_MAX];
        loop {
            match line.wait(&stream) {
                None => return End::Outlet,
                _ if !line.queue.has_carrier() => return End::Down,
                Some(false) => {
                    self.turn_away();
                    continue;
                }
                Some(true) => {}
            }
            let length = match stream.read(&mut chunk) {
                Ok(0) => return End::Left,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return End::Left,
            };
            kept.extend_from_slice(&chunk[..length]);
            let mut rest = &kept[..];
            while let Some((length, after)) = rest.split_first_chunk::<LENGTH>() {
                let length = u32::from_be_bytes(*length) as usize;
                if length > FRAME_MAX {
                    return End::Nonsense(length);
                }
                let Some((frame, after)) = after.split_at_checked(length) else { break };
                line.deliver(frame);
                rest = after;
            }
            let used = kept.len() - rest.len();
            kept.drain(..used);
        }
    }

    /// Hangs up on others that come while a connection is there.
    fn turn_away(&self) {
        if let Role::Listens { listener, .. } = &self.role {
            while listener.accept().is_ok() {}
        }
    }
}

/// Why reading ended.
enum End {
    /// The outlet ends.
    Outlet,
    /// There is no signal at the near end any more.
    Down,
    Left,
    /// A length that no frame has.
    Nonsense(usize),
}

/// Listens at `path`; what is there is stale.
fn listen(path: &Path) -> Result<UnixListener> {
    if let Ok(found) = fs::symlink_metadata(path) {
        ensure!(found.file_type().is_socket(), "{} is there, and is no socket", path.display());
        fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot make the socket {}", path.display()))?;
    listener.set_nonblocking(true).context("cannot set a socket up")?;
    Ok(listener)
}

impl Peer {
    fn arrive(&self, stream: UnixStream) {
        *lock(&self.stream) = Some(Arc::new(stream));
        self.came.notify_all();
    }

    fn leave(&self) {
        if let Some(stream) = lock(&self.stream).take() {
            // The writer may be in the middle of a frame.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Waits for a connection, for a moment.
    fn wait(&self) -> Option<Arc<UnixStream>> {
        let guard = lock(&self.stream);
        let waited = self.came.wait_timeout_while(guard, TICK, |stream| stream.is_none());
        let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        guard.clone()
    }

    /// Writes frames until the outlet ends.
    pub(crate) fn write(&self, line: &Line) {
        let mut bytes = Vec::new();
        while let Some(first) = line.next() {
            bytes.clear();
            let mut frames = 0;
            for frame in [first].into_iter().chain(line.queue.frames().try_iter().take(BATCH)) {
                bytes.extend(u32::try_from(frame.len()).unwrap_or(0).to_be_bytes());
                bytes.extend_from_slice(&frame);
                frames += 1;
            }
            let sent = self.wait().is_some_and(|stream| (&*stream).write_all(&bytes).is_ok());
            let counter = if sent { &line.queue.sent } else { &line.queue.dropped };
            (0..frames).for_each(|_| Queue::count(counter));
        }
    }
}
