//! Serial ports: 16550s whose output goes to a writer and whose input comes from the host.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use refault_bus::bits::low_u8;
use refault_bus::mmio::MmioDevice;
use refault_bus::sync::lock;
use tracing::debug;
use vm_superio::serial::{Error, NoEvents};
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The resources of a serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAddress {
    /// First of its eight I/O ports.
    pub base: u16,
    /// Its interrupt line. No two ports share a line, since lines are edge-triggered.
    pub irq: u32,
}

/// Number of I/O ports that a 16550 occupies.
pub const SERIAL_SIZE: u16 = 8;

/// The guest's ttyS0, ttyS1 and ttyS2, where Linux looks for them.
pub const PORT_ADDRESSES: [PortAddress; 3] = [
    PortAddress { base: 0x3f8, irq: 4 },
    PortAddress { base: 0x2f8, irq: 3 },
    PortAddress { base: 0x3e8, irq: 5 },
];

/// Bytes that fit into an empty UART.
const FIFO: usize = 64;
/// Bytes of input that are queued at most; a writer with more waits.
const WAITING: usize = 64 << 10;

/// An interrupt line as an event that KVM watches.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

type Uart = Serial<Line, NoEvents, Box<dyn Write + Send>>;

/// One serial port.
///
/// Input is queued until the UART has room. The thread that held the UART moves it there when it is done, so that adding
/// input never waits for a guest's output to be written.
pub struct SerialPort {
    uart: Mutex<Uart>,
    input: Mutex<VecDeque<u8>>,
    /// Signalled when the guest has read some input.
    read: Condvar,
}

impl SerialPort {
    /// A port that writes to `output`, and the event to attach to its interrupt line.
    ///
    /// # Errors
    /// The host has no file descriptor left for an event.
    pub fn new(output: Box<dyn Write + Send>) -> io::Result<(Self, EventFd)> {
        let line = EventFd::new(EFD_NONBLOCK)?;
        let uart = Serial::new(Line(line.try_clone()?), output);
        Ok((Self { uart: Mutex::new(uart), input: Mutex::default(), read: Condvar::new() }, line))
    }

    /// Queues `bytes` for the guest to read. Blocks while the queue is full: forever, if the guest never reads. Never waits
    /// for the guest's output.
    pub fn inject(&self, bytes: &[u8]) {
        for piece in bytes.chunks(WAITING) {
            let mut queue = self.queue();
            while queue.len() + piece.len() > WAITING {
                queue = self.read.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            queue.extend(piece);
            drop(queue);
            self.pump();
        }
    }

    /// Moves queued input into the UART. If another thread holds it, that thread does so when it is done.
    fn pump(&self) {
        while !self.queue().is_empty() {
            let mut uart = match self.uart.try_lock() {
                Ok(uart) => uart,
                Err(TryLockError::Poisoned(error)) => error.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            if uart.fifo_capacity() < FIFO {
                return;
            }
            // One byte at a time: any read of the UART withdraws its interrupt, so if a driver left more bytes for its next
            // turn, there would be no next turn.
            let mut queue = self.queue();
            let byte: Vec<u8> = queue.front().copied().into_iter().collect();
            match uart.enqueue_raw_bytes(&byte) {
                // In loopback mode input is refused, and there may be no room until the guest reads.
                Ok(0) | Err(Error::FullFifo) => return,
                Ok(_) => {}
                // The bytes are in; only the interrupt failed.
                Err(error) => debug!(%error, "serial input"),
            }
            queue.pop_front();
            self.read.notify_all();
        }
    }

    fn uart(&self) -> MutexGuard<'_, Uart> {
        lock(&self.uart)
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<u8>> {
        lock(&self.input)
    }
}

impl MmioDevice for SerialPort {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut uart = self.uart();
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte = uart.read(low_u8(at));
        }
        drop(uart);
        self.pump();
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut uart = self.uart();
        for (&byte, at) in data.iter().zip(offset..) {
            // A closed output is not the guest's problem.
            if let Err(error) = uart.write(low_u8(at), byte) {
                debug!(%error, "serial output");
            }
        }
        drop(uart);
        self.pump();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const DATA: u64 = 0;
    const INTERRUPT_ENABLE: u64 = 1;
    const INTERRUPT_IDENTIFICATION: u64 = 2;
    const MODEM_CONTROL: u64 = 4;
    const LINE_STATUS: u64 = 5;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn port() -> (SerialPort, EventFd, Output) {
        let output = Output::default();
        let (port, line) = SerialPort::new(Box::new(output.clone())).unwrap();
        (port, line, output)
    }

    fn register(port: &SerialPort, offset: u64) -> u8 {
        let mut data = [0];
        port.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn output_reaches_the_writer() {
        let (port, _, output) = port();
        for byte in b"hello" {
            port.write(DATA, &[*byte]);
        }
        assert_eq!(*output.0.lock().unwrap(), b"hello");
    }

    #[test]
    fn input_longer_than_the_fifo_arrives_whole() {
        let (port, line, _) = port();
        port.write(INTERRUPT_ENABLE, &[1]);
        let text: Vec<u8> = (0..1000u32).map(|index| index as u8).collect();
        port.inject(&text[..500]);
        port.inject(&text[500..]);
        assert!(line.read().is_ok());
        let mut read = Vec::new();
        while register(&port, LINE_STATUS) & 1 != 0 {
            read.push(register(&port, DATA));
        }
        assert_eq!(read, text);
    }

    #[test]
    fn unread_input_is_bounded() {
        let (port, _, _) = port();
        let port = Arc::new(port);
        let feeder = port.clone();
        let feeding = std::thread::spawn(move || (0..100).for_each(|_| feeder.inject(&[7; 4096])));
        let mut read = 0;
        while read < 100 * 4096 {
            assert!(port.queue().len() <= WAITING);
            read += usize::from(register(&port, LINE_STATUS) & 1 != 0 && register(&port, DATA) == 7);
        }
        feeding.join().unwrap();
    }

    #[test]
    fn a_driver_that_takes_a_few_bytes_per_interrupt_gets_them_all() {
        let (port, _, _) = port();
        port.write(INTERRUPT_ENABLE, &[1]);
        let text: Vec<u8> = (0..300u32).map(|index| index as u8).collect();
        port.inject(&text);
        let mut read = Vec::new();
        while register(&port, INTERRUPT_IDENTIFICATION) & 1 == 0 {
            for _ in 0..16 {
                if register(&port, LINE_STATUS) & 1 != 0 {
                    read.push(register(&port, DATA));
                }
            }
        }
        assert_eq!(read, text);
    }

    #[test]
    fn input_during_loopback_waits() {
        let (port, _, _) = port();
        port.write(MODEM_CONTROL, &[0x10]);
        port.inject(b"x");
        assert_eq!(register(&port, LINE_STATUS) & 1, 0);
        port.write(MODEM_CONTROL, &[0]);
        assert_eq!(register(&port, DATA), b'x');
    }

    #[test]
    fn input_does_not_wait_for_output() {
        let (port, _, _) = port();
        let held = port.uart();
        port.inject(b"x");
        drop(held);
        assert_eq!(register(&port, LINE_STATUS) & 1, 0, "the holder did not leave through the port");
        assert_eq!(register(&port, LINE_STATUS) & 1, 1);
    }

    #[test]
    fn any_access_completes() {
        let (port, _, _) = port();
        for offset in 0..8 {
            for len in 0..=8 {
                port.write(offset, &vec![0xff; len]);
                port.read(offset, &mut vec![0; len]);
            }
        }
    }

    #[test]
    fn no_two_ports_share_anything() {
        for (index, place) in PORT_ADDRESSES.iter().enumerate() {
            for other in &PORT_ADDRESSES[index + 1..] {
                assert!(place.irq != other.irq && place.base.abs_diff(other.base) >= SERIAL_SIZE);
            }
        }
    }
}
