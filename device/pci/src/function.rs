//! A PCI function as the machine sees it.

use refault_bus::Bdf;

use crate::{ConfigEffect, Endpoint};

/// One function on the bus. All calls come from any thread, several at once.
pub trait PciFunction: Send + Sync {
    /// Its place on the bus, which is its requester id.
    fn bdf(&self) -> Bdf;

    /// Its configuration side.
    fn endpoint(&self) -> &Endpoint;

    /// Hears of a config write that changed a switch, moved a BAR or reset the page request interface, after
    /// the endpoint's registers did. A function-level reset comes as [`Self::reset`] instead.
    fn config_changed(&self, _effect: &ConfigEffect) {}

    /// Fills `data` (1 to 8 bytes, any alignment) from `offset` inside a BAR.
    fn bar_read(&self, bar: u8, offset: u64, data: &mut [u8]);

    /// Takes `data` (1 to 8 bytes, any alignment) at `offset` inside a BAR.
    fn bar_write(&self, bar: u8, offset: u64, data: &[u8]);

    /// Function-level reset, or reset of the machine: all state behind the BARs back to its start, nothing
    /// in flight afterwards. The endpoint's registers are reset by whoever calls this, afterwards.
    fn reset(&self);

    /// A config read by the guest.
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        self.endpoint().config_read(offset, data);
    }

    /// A config write by the guest, with everything that follows from it.
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
