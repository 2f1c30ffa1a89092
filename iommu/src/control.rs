//! Global control of the unit: the state of GCMD, GSTS and RTADDR (§11.4.4, §11.4.5), and of register-based invalidation
//! (§11.4.6).

/// What the registers of the guest's commands hold, and what the commands have set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Control {
    /// RTADDR as written; the walks use the value that SRTP latched.
    pub(crate) root: u64,
    /// GSTS.RTPS: a root table pointer was latched.
    pub(crate) root_set: bool,
    /// GSTS.TES: translation is on.
    pub(crate) enabled: bool,
    /// CCMD: the last context-cache invalidation.
    pub(crate) context_command: u64,
    /// IOTLB: the last IOTLB invalidation.
    pub(crate) iotlb_command: u64,
}
