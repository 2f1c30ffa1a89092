//! Writes what passes the cables into a file, on a thread of its own: a wire waits for no disk.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use crossbeam::channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};
use refault_bus::wire::EthernetFrame;
use refault_link::{Capture, Direction, Sighting};
use refault_os::message::note;
use refault_os::syscalls::{ThreadKind, confine};
use refault_roce::{FlushIcrc, frame};

/// Frames that may wait to be written. What is above is missing in the capture, and counted.
const WAITING: usize = 8192;

/// Where to write a capture, in the format pcapng.
pub struct CaptureTo {
    /// Name of the file, for messages.
    pub name: String,
    /// The file.
    pub to: Box<dyn Write + Send>,
    /// Most bytes kept of a frame.
    pub limit: usize,
}

/// A frame that was seen.
struct Seen {
    port: u32,
    time_ns: u64,
    direction: Direction,
    frame: EthernetFrame,
    comment: Option<String>,
}

/// Hands frames over to the thread that writes. The thread ends when there is no tap left.
#[derive(Clone)]
pub(super) struct Tap {
    frames: Sender<Seen>,
    missing: Arc<AtomicU64>,
}

impl Tap {
    pub(super) fn add(
        &self,
        port: u32,
        time_ns: u64,
        direction: Direction,
        frame: &EthernetFrame,
        comment: Option<String>,
    ) {
        if self.frames.is_full() {
            self.missing.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let seen = Seen { port, time_ns, direction, frame: frame.clone(), comment };
        if let Err(TrySendError::Full(_)) = self.frames.try_send(seen) {
            self.missing.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Starts a capture of the ports with these names.
///
/// # Errors
/// The file cannot be written, or the thread cannot be started.
pub(super) fn start(to: CaptureTo, ports: Vec<String>) -> Result<(Tap, JoinHandle<()>)> {
    let CaptureTo { name, to, limit } = to;
    let names: Vec<_> = ports.iter().map(String::as_str).collect();
    let capture = Capture::new(BufWriter::with_capacity(1 << 18, to), &names, limit)
        .with_context(|| format!("cannot write {name}"))?;
    let (frames, seen) = bounded(WAITING);
    let missing = Arc::new(AtomicU64::new(0));
    let tap = Tap { frames, missing: missing.clone() };
    let thread = thread::Builder::new().name("capture".into()).spawn(move || {
        confine(ThreadKind::Output);
        if let Err(error) = write(capture, &seen) {
            note(&format!("--capture: cannot write {name}: {error}; the guest goes on without it"));
        }
        // Whatever comes after an error is taken and forgotten.
        seen.iter().for_each(drop);
        match missing.load(Ordering::Relaxed) {
            0 => {}
            count => note(&format!(
                "--capture: {count} frames are not in {name}: they came faster than it was written"
            )),
        }
    });
    Ok((tap, thread.context("cannot start a thread for the capture")?))
}

/// Writes until the last tap is gone. What was written is in the file whenever nothing is waiting.
fn write<W: Write>(mut capture: Capture<W>, frames: &Receiver<Seen>) -> io::Result<()> {
    loop {
        let seen = match frames.try_recv() {
            Ok(seen) => seen,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                capture.flush()?;
                let Ok(seen) = frames.recv() else { break };
                seen
            }
        };
        let Seen { port, time_ns, direction, mut frame, comment } = seen;
        if !frame.sealed {
            // What is no packet of RoCE has no checksum that is missing.
            let _ = frame::seal(&mut frame.bytes, FlushIcrc::Standard);
        }
        let comment = comment.as_deref();
        let comments = comment.as_slice();
        capture.add(&Sighting { port, time_ns, direction, frame: &frame.bytes, comments })?;
    }
    capture.finish().map(drop)
}
