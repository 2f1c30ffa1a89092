//! The guest's serial ports: its kernel's log, the frames of the command's streams, and control lines.
//!
//! **Invariant.** The result does not depend on the pieces in which bytes arrive. Without init's token the guest neither becomes
//! ready nor reports an exit status. What is kept of the log is bounded, and so are lines that wait to be sent back. A
//! channel that breaks stays broken, and nothing of what came before is lost or changed.

use std::io::Write;
use std::sync::{Arc, Mutex};

use refault_bus::sync::lock;
use refault_vmm::run::from_guest::{GuestPorts, GuestReport};

use crate::fuzz::OPERATIONS_MAX;
use crate::fuzz::feed::Feed;

const TOKEN: &str = "7f";
/// Kept of the kernel's log, in bytes and in lines of trouble.
const LOG_MAX: usize = 12 << 10;
const FINDINGS_MAX: usize = 100;
/// Characters at its end that are kept in any case.
const LOG_END: usize = 2000;
/// Lines that wait.
const ANSWERS_MAX: usize = 16;
/// Pieces of what a guest writes.
const PIECES: &[&[u8]] = &[
    b"7f ready\n",
    b"7f exit 3\n",
    b"7f exit 99999999999\n",
    b"7f collect-failed\r\n",
    b"exit 3\n",
    b"line?\n",
    b"\n",
    b"[    1.000000] BUG: unable to handle\n",
    b"[    1.0] DMAR: fault\n",
    b"reboot: System halted\r\n",
    &[0x11, 2, 0, b'o', b'k'],
    &[0x13, 4, 0, 0xff, 0xff, 0xff, 0xff],
    &[0x14, 4, 0, 0, 0, 0, 0],
    &[0x11, 0xff, 0x0f],
    &[0x7f, 0, 0],
];

/// Where the command's output goes.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Ports, and all that came out of them.
struct Side {
    ports: GuestPorts,
    output: Output,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Side {
    fn new() -> Self {
        let (output, lines) = (Output::default(), Arc::<Mutex<Vec<String>>>::default());
        let kept = lines.clone();
        let listener = move |line: &str| {
            lock(&kept).push(line.to_owned());
            line.ends_with('?')
        };
        Self { ports: GuestPorts::new(TOKEN, Box::new(output.clone()), Box::new(listener)), output, lines }
    }

    fn outcome(&self) -> (GuestReport, Vec<u8>, Vec<String>) {
        (self.ports.report(), lock(&self.output.0).clone(), lock(&self.lines).clone())
    }
}

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut feed = Feed::new(bytes);
    let (mut whole, mut pieces) = (Side::new(), Side::new());
    let mut control = Vec::new();
    for _ in 0..OPERATIONS_MAX {
        if feed.is_empty() {
            break;
        }
        let choice = feed.byte();
        let port = choice % 3;
        let data = if choice & 0x40 != 0 { feed.bytes(255) } else { PIECES[feed.below(PIECES.len())] };
        let repeat = if choice & 0x80 != 0 { usize::from(feed.byte()) } else { 1 };
        let data = data.repeat(repeat);
        if port == 2 {
            control.extend(&data);
        }
        whole.ports.write(port, &data).expect("ports take all");
        let size = 1 + feed.below(7);
        data.chunks(size).for_each(|piece| pieces.ports.write(port, piece).expect("ports take all"));
        let answers = whole.ports.answers();
        assert!(answers.len() <= ANSWERS_MAX && answers == pieces.ports.answers());
    }
    let ((mut report, output, lines), mut of_pieces) = (whole.outcome(), pieces.outcome());
    // How much more than the last bytes of the log is kept depends on when it is cut.
    let (log, other_log) = (std::mem::take(&mut report.log), std::mem::take(&mut of_pieces.0.log));
    assert!(log.chars().rev().take(LOG_END).eq(other_log.chars().rev().take(LOG_END)));
    assert_eq!((&report, &output, &lines), (&of_pieces.0, &of_pieces.1, &of_pieces.2));
    assert!(log.len() <= 3 * LOG_MAX, "each byte that is no text becomes three");
    assert!(report.findings.len() <= FINDINGS_MAX);
    if !String::from_utf8_lossy(&control).contains(TOKEN) {
        assert!(!report.ready && report.exit.is_none() && report.broken.is_none() && output.is_empty());
    }
}
