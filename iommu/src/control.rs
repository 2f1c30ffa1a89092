//! Global control of the unit: the state of GCMD, GSTS and RTADDR (§11.4.4, §11.4.5).

/// What the commands written to GCMD have set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Control {
    /// RTADDR as written; the walks use the value that SRTP latched.
    pub(crate) root: u64,
    /// GSTS.RTPS: a root table pointer was latched.
    pub(crate) root_set: bool,
    /// GSTS.TES: translation is on.
    pub(crate) enabled: bool,
}
