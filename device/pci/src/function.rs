//! A PCI function as the machine sees it.

use refault_bus::Bdf;

use crate::{ConfigEffect, Endpoint};

/// One function on the bus. Any thread may call it, several at once.
pub trait PciFunction: Send + Sync {
    /// Bus, device and function number, which are also its requester ID.
    fn bdf(&self) -> Bdf;

    /// The configuration side of the function.
    fn endpoint(&self) -> &Endpoint;

    /// Called after a config write that changed a switch, moved a BAR or reset the page request interface; the
    /// endpoint has its new values. For a function-level reset, [`Self::reset`] is called instead.
    fn config_changed(&self, _effect: &ConfigEffect) {}

    /// Fills `data` (1 to 8 bytes, any alignment) from `offset` inside a BAR.
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]);

    /// Writes `data` (1 to 8 bytes, any alignment) at `offset` inside a BAR.
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]);

    /// Function-level reset, or reset of the machine: resets all state behind the BARs and returns when nothing is in
    /// flight. The caller resets the endpoint's registers afterwards, when nothing uses them.
    fn reset(&self);

    /// Performs a config read of the guest.
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.endpoint().config_read(offset, data);
    }

    /// Performs a config write of the guest, with all its effects.
    fn config_write(&self, offset: u16, data: &[u8]) -> ConfigEffect {
        let mut effect = self.endpoint().config_write(offset, data);
        if effect.function_reset {
            self.reset();
            self.endpoint().reset();
            effect.after = self.endpoint().controls();
            effect.bars_moved = true;
        } else if effect.before != effect.after || effect.bars_moved || effect.pri_reset {
            self.config_changed(&effect);
        }
        effect
    }
}
