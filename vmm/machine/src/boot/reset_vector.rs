//! Code at the real-mode reset vector, as firmware provides it.
//!
//! Linux jumps there on a hardware-reduced machine without EFI, before it tries the reset register.

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

use crate::control::{RESET_PORT, RESET_VALUE};
use crate::memory::layout::RESET_VECTOR;

/// `mov dx, RESET_PORT`, `mov al, RESET_VALUE`, `out dx, al`, `hlt`, and a jump back to the `hlt`.
const CODE: [u8; 9] = {
    let [low, high] = RESET_PORT.to_le_bytes();
    [0xba, low, high, 0xb0, RESET_VALUE, 0xee, 0xf4, 0xeb, 0xfd]
};

/// Writes the code into guest memory.
pub(super) fn write(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    memory.write_slice(&CODE, GuestAddress(RESET_VECTOR))
}
