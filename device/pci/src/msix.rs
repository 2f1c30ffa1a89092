//! MSI-X: the table and the pending bits in a BAR, and the sending of vectors (PCIe 6.0, 6.1.4 and 7.7.2).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use refault_bus::irq::{MsiMessage, MsiSink};
use refault_bus::sync::lock;

use crate::Controls;

/// Where the vectors of a function lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLayout {
    /// The BAR that holds table and pending bits.
    pub bar: u8,
    /// Number of vectors, 1 to 2048.
    pub vectors: u16,
    /// Offset of the table in that BAR, a multiple of 8.
    pub table: u32,
    /// Offset of the pending bits in that BAR, a multiple of 8.
    pub pending: u32,
}

impl MsixLayout {
    /// `vectors` vectors that have `bar` for themselves: the table at its start, the pending bits in the
    /// first free page behind it.
    pub const fn in_own_bar(bar: u8, vectors: u16) -> Self {
        let table_size = vectors as u32 * ENTRY_SIZE as u32;
        Self { bar, vectors, table: 0, pending: table_size.next_multiple_of(0x1000) }
    }

    /// The smallest size of a BAR that holds both, in bytes.
    pub const fn bar_size(&self) -> u64 {
        let end = if self.pending > self.table { self.pending_end() } else { self.table_end() };
        let size = end.next_power_of_two();
        if size < 0x1000 { 0x1000 } else { size }
    }

    pub(crate) const fn table_end(&self) -> u64 {
        self.table as u64 + self.vectors as u64 * ENTRY_SIZE
    }

    pub(crate) const fn pending_end(&self) -> u64 {
        self.pending as u64 + (self.vectors as u64).div_ceil(64) * 8
    }
}

/// Bytes of one table entry.
const ENTRY_SIZE: u64 = 16;
/// Mask bit in an entry's last dword, its only one.
const ENTRY_MASKED: u32 = 1;

/// One vector: the entry's four dwords (address, data, control) and its pending bit.
#[derive(Clone, Copy, Debug)]
struct Vector {
    entry: [u32; 4],
    pending: bool,
}

impl Vector {
    const RESET: Self = Self { entry: [0, 0, 0, ENTRY_MASKED], pending: false };

    fn is_masked(&self) -> bool {
        self.entry[3] & ENTRY_MASKED != 0
    }

    fn message(&self) -> MsiMessage {
        let [low, high, data, _] = self.entry;
        MsiMessage { address: u64::from(high) << 32 | u64::from(low), data }
    }
}

/// The vectors of one function.
pub struct MsixTable {
    layout: MsixLayout,
    sink: Arc<dyn MsiSink>,
    /// Shared with the endpoint, which stores new switches before it calls [`Self::deliver_pending`]; they are
    /// loaded here with the vectors locked. So a vector raised meanwhile is either sent or found pending.
    controls: Arc<AtomicU32>,
    vectors: Mutex<Vec<Vector>>,
}

impl MsixTable {
    pub(crate) fn new(layout: MsixLayout, sink: Arc<dyn MsiSink>, controls: Arc<AtomicU32>) -> Self {
        let vectors = Mutex::new(vec![Vector::RESET; usize::from(layout.vectors)]);
        Self { layout, sink, controls, vectors }
    }

    /// Where table and pending bits lie.
    pub fn layout(&self) -> MsixLayout {
        self.layout
    }

    /// Raises `vector`: sends its message, or remembers it until the guest allows it. A vector the function
    /// does not have, or raised while MSI-X is off, is nothing.
    pub fn notify(&self, vector: u16) {
        let mut vectors = lock(&self.vectors);
        let controls = self.controls();
        let Some(vector) = vectors.get_mut(usize::from(vector)) else { return };
        if controls.interrupts() && !vector.is_masked() {
            self.sink.signal(vector.message());
        } else if controls.msix_enabled() {
            vector.pending = true;
        }
    }

    /// A read of the BAR that holds the table. What is neither table nor pending bits reads as zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let vectors = lock(&self.vectors);
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte = self.byte(&vectors, at);
        }
    }

    /// A write to the BAR that holds the table. Only the table can be written.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut vectors = lock(&self.vectors);
        let table = u64::from(self.layout.table)..self.layout.table_end();
        for (&byte, at) in data.iter().zip(offset..) {
            if !table.contains(&at) {
                continue;
            }
            let at = (at - table.start) as usize;
            let (dword, shift) = (at / 4 % 4, at % 4 * 8);
            if let Some(vector) = vectors.get_mut(at / ENTRY_SIZE as usize) {
                let value = vector.entry[dword] & !(0xff << shift) | u32::from(byte) << shift;
                vector.entry[dword] = if dword == 3 { value & ENTRY_MASKED } else { value };
            }
        }
        self.send_pending(&mut vectors);
    }

    /// Sends what has become allowed by a change of the function's switches.
    pub(crate) fn deliver_pending(&self) {
        self.send_pending(&mut lock(&self.vectors));
    }

    /// All vectors masked, none pending.
    pub(crate) fn reset(&self) {
        lock(&self.vectors).fill(Vector::RESET);
    }

    fn send_pending(&self, vectors: &mut [Vector]) {
        if !self.controls().interrupts() {
            return;
        }
        for vector in vectors.iter_mut().filter(|vector| vector.pending && !vector.is_masked()) {
            vector.pending = false;
            self.sink.signal(vector.message());
        }
    }

    fn byte(&self, vectors: &[Vector], at: u64) -> u8 {
        let table = u64::from(self.layout.table)..self.layout.table_end();
        let pending = u64::from(self.layout.pending)..self.layout.pending_end();
        if table.contains(&at) {
            let at = (at - table.start) as usize;
            let vector = vectors.get(at / ENTRY_SIZE as usize);
            vector.map_or(0, |vector| (vector.entry[at / 4 % 4] >> (at % 4 * 8)) as u8)
        } else if pending.contains(&at) {
            let first = (at - pending.start) as usize * 8;
            let bits = vectors.iter().skip(first).take(8).zip(0u32..);
            bits.fold(0, |byte, (vector, bit)| byte | u8::from(vector.pending) << bit)
        } else {
            0
        }
    }

    fn controls(&self) -> Controls {
        Controls(self.controls.load(Ordering::Acquire))
    }
}
