//! The switches of a function that the guest controls, and how a config write changed them.

/// A snapshot of a function's switches, read without a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controls(pub(crate) u32);

macro_rules! switches {
    ($($(#[$doc:meta])* $name:ident = $bit:literal as $constant:ident;)*) => {
        impl Controls {
            $(pub(crate) const $constant: u32 = 1 << $bit;

            $(#[$doc])*
            pub const fn $name(self) -> bool {
                self.0 & Self::$constant != 0
            })*
        }
    };
}

switches! {
    /// Memory BARs are decoded.
    memory_space = 0 as MEMORY_SPACE;
    /// The function may issue requests: DMA, MSI-X, translation and page requests.
    bus_master = 1 as BUS_MASTER;
    /// Translation requests and translated accesses are allowed.
    ats = 2 as ATS;
    /// Page requests are allowed.
    pri = 3 as PRI;
    /// Requests may carry a PASID.
    pasid = 4 as PASID;
    /// MSI-X is enabled.
    msix_enabled = 5 as MSIX_ENABLED;
    /// All MSI-X vectors are masked.
    msix_masked = 6 as MSIX_MASKED;
}

impl Controls {
    /// Whether an unmasked vector may be sent now.
    pub const fn interrupts(self) -> bool {
        self.bus_master() && self.msix_enabled() && !self.msix_masked()
    }
}

/// The effect of a config write, for the function and the machine to act on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConfigEffect {
    /// The switches before the write.
    pub before: Controls,
    /// The switches after the write.
    pub after: Controls,
    /// A BAR was moved, or decoding was turned on or off: the machine's address map is out of date.
    pub bars_moved: bool,
    /// The guest initiated a function-level reset.
    pub function_reset: bool,
    /// The guest reset the page request interface: outstanding requests and credits are void.
    pub pri_reset: bool,
}

impl ConfigEffect {
    /// Whether `switch` went from on to off.
    pub fn turned_off(&self, switch: impl Fn(Controls) -> bool) -> bool {
        switch(self.before) && !switch(self.after)
    }

    /// Whether `switch` went from off to on.
    pub fn turned_on(&self, switch: impl Fn(Controls) -> bool) -> bool {
        !switch(self.before) && switch(self.after)
    }
}
