//! The guest's serial ports, as sockets to QEMU.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use refault_bus::sync::lock;
use refault_machine::SerialInput;

/// Pieces of input that may wait for the guest to read; a writer with more waits.
const WAITING: usize = 64;

/// The host's end of a port's input.
pub(super) struct Input(Mutex<SyncSender<Vec<u8>>>);

/// A port that is not connected to QEMU yet.
pub(super) struct UnconnectedPort {
    output: Box<dyn Write + Send>,
    input: Receiver<Vec<u8>>,
}

impl UnconnectedPort {
    /// A port that writes to `output`, and its input.
    pub(super) fn new(output: Box<dyn Write + Send>) -> (Self, Input) {
        let (sender, input) = sync_channel(WAITING);
        (Self { output, input }, Input(Mutex::new(sender)))
    }

    /// Connects the port. The returned thread ends when all output of the guest has been written.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub(super) fn connect(self, stream: UnixStream) -> std::io::Result<JoinHandle<()>> {
        let Self { mut output, input } = self;
        let mut into = stream.try_clone()?;
        std::thread::spawn(move || while input.recv().is_ok_and(|bytes| into.write_all(&bytes).is_ok()) {});
        let mut from = stream;
        Ok(std::thread::spawn(move || {
            let mut buffer = [0; 16 << 10];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                let bytes = buffer.get(..count).unwrap_or_default();
                if output.write_all(bytes).and_then(|()| output.flush()).is_err() {
                    break;
                }
            }
        }))
    }
}

impl SerialInput for Input {
    fn inject(&self, bytes: &[u8]) {
        // Fails only when QEMU has ended, and the guest with it.
        let _ = lock(&self.0).send(bytes.to_vec());
    }
}
