//! MSI-X: the table and the pending bits in a BAR, and how vectors are sent (PCIe 6.0, 6.1.4 and 7.7.2).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use refault_bus::irq::{MsiMessage, MsiSink};
use refault_bus::sync::lock;

use crate::Controls;

/// The place of a function's MSI-X table and pending bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLayout {
    /// Index of the BAR that holds table and pending bits.
    pub bar: u8,
    /// Number of vectors, 1 to 2048.
    pub vectors: u16,
    /// Offset of the table in that BAR in bytes, a multiple of 8.
    pub table: u32,
    /// Offset of the pending bits in that BAR in bytes, a multiple of 8.
    pub pending: u32,
}

impl MsixLayout {
    /// The layout of `vectors` vectors in a BAR of their own: the table at its start, the pending bits at the first page
    /// boundary after it.
    pub const fn in_own_bar(bar: u8, vectors: u16) -> Self {
        let table_size = vectors as u32 * ENTRY_SIZE;
        Self { bar, vectors, table: 0, pending: table_size.next_multiple_of(0x1000) }
    }

    /// The smallest size in bytes of a BAR that holds both.
    pub const fn bar_size(&self) -> u64 {
        let end = if self.pending > self.table { self.pending_end() } else { self.table_end() };
        let size = end.next_power_of_two();
        if size < 0x1000 { 0x1000 } else { size }
    }

    pub(crate) const fn table_end(&self) -> u64 {
        self.table as u64 + self.vectors as u64 * ENTRY_SIZE as u64
    }

    pub(crate) const fn pending_end(&self) -> u64 {
        self.pending as u64 + (self.vectors as u64).div_ceil(64) * 8
    }
}

/// Size of a table entry in bytes.
const ENTRY_SIZE: u32 = 16;
/// Vector control, the entry's last dword: the mask bit. The other bits are reserved.
const ENTRY_MASKED: u32 = 1;

/// One vector: the entry's four dwords (address, upper address, data, vector control) and its pending bit.
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
    /// Shared with the endpoint, which stores new switches and then calls [`Self::deliver_pending`]. Here they are
    /// loaded with the vectors locked. So a vector that is raised at the same time is either sent with the new
    /// switches, or already pending when `deliver_pending` gets the lock; it is never lost.
    controls: Arc<AtomicU32>,
    vectors: Mutex<Vec<Vector>>,
}

impl MsixTable {
    pub(crate) fn new(layout: MsixLayout, sink: Arc<dyn MsiSink>, controls: Arc<AtomicU32>) -> Self {
        let vectors = Mutex::new(vec![Vector::RESET; usize::from(layout.vectors)]);
        Self { layout, sink, controls, vectors }
    }

    /// The place of table and pending bits.
    pub fn layout(&self) -> MsixLayout {
        self.layout
    }

    /// Raises `vector`: sends its message, or sets its pending bit until the guest unmasks it. Ignored if there is no
    /// such vector, or MSI-X is off.
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

    /// Performs a read of the BAR that holds the table. Bytes outside table and pending bits read as zero.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let vectors = lock(&self.vectors);
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte = self.byte(&vectors, at);
        }
    }

    /// Performs a write to the BAR that holds the table, and sends the vectors that it unmasks. Only the table is
    /// writable.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut vectors = lock(&self.vectors);
        for (&new, at) in data.iter().zip(offset..) {
            let Some((vector, dword, byte)) = self.table_byte(at) else { continue };
            if let Some(vector) = vectors.get_mut(vector) {
                let mut bytes = vector.entry[dword].to_le_bytes();
                bytes[byte] = new;
                let value = u32::from_le_bytes(bytes);
                vector.entry[dword] = if dword == 3 { value & ENTRY_MASKED } else { value };
            }
        }
        self.send_pending(&mut vectors);
    }

    /// Sends pending vectors that a change of the function's switches has enabled.
    pub(crate) fn deliver_pending(&self) {
        self.send_pending(&mut lock(&self.vectors));
    }

    /// Masks all vectors and clears their pending bits.
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

    /// The byte of table or pending bits at `at` in the BAR.
    fn byte(&self, vectors: &[Vector], at: u64) -> u8 {
        if let Some((vector, dword, byte)) = self.table_byte(at) {
            vectors.get(vector).map_or(0, |vector| vector.entry[dword].to_le_bytes()[byte])
        } else if let Some(first) = self.pending_byte(at) {
            let bits = vectors.iter().skip(first).take(8).zip(0u32..);
            bits.fold(0, |byte, (vector, bit)| byte | u8::from(vector.pending) << bit)
        } else {
            0
        }
    }

    /// Vector, dword of its entry, and byte of that dword, of a byte in the table; `None` outside the table.
    fn table_byte(&self, at: u64) -> Option<(usize, usize, usize)> {
        let table = u64::from(self.layout.table)..self.layout.table_end();
        let at = if table.contains(&at) { usize::try_from(at - table.start).ok()? } else { return None };
        Some((at / ENTRY_SIZE as usize, at / 4 % 4, at % 4))
    }

    /// First vector of a byte of the pending bits; `None` outside them.
    fn pending_byte(&self, at: u64) -> Option<usize> {
        let pending = u64::from(self.layout.pending)..self.layout.pending_end();
        if pending.contains(&at) { Some(usize::try_from(at - pending.start).ok()? * 8) } else { None }
    }

    fn controls(&self) -> Controls {
        Controls(self.controls.load(Ordering::Acquire))
    }
}
