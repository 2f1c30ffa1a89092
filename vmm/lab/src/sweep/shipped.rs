//! Sweeps that come with refault.

use crate::shipped::Shipped;

/// All shipped sweeps.
pub const SWEEPS: Shipped = Shipped(&[
    ("credits-by-handlers", include_str!("shipped/credits-by-handlers.toml")),
    ("batch-by-size", include_str!("shipped/batch-by-size.toml")),
    ("fault-rate", include_str!("shipped/fault-rate.toml")),
    ("retry-rate", include_str!("shipped/retry-rate.toml")),
    ("responder-policies", include_str!("shipped/responder-policies.toml")),
    ("rnr-timers", include_str!("shipped/rnr-timers.toml")),
    ("fault-buffers", include_str!("shipped/fault-buffers.toml")),
    ("wire-pauses", include_str!("shipped/wire-pauses.toml")),
    ("npf-on-a-wire", include_str!("shipped/npf-on-a-wire.toml")),
    ("damming-by-rate", include_str!("shipped/damming-by-rate.toml")),
    ("damming-by-timeout", include_str!("shipped/damming-by-timeout.toml")),
]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipped::no_files;
    use crate::sweep::SweepPlan;

    #[test]
    fn every_point_of_every_shipped_sweep_is_a_scenario() {
        for name in SWEEPS.names() {
            let plan = SweepPlan::open(name, &no_files).unwrap_or_else(|error| panic!("{error}"));
            assert!(plan.name() == name && plan.len() > 1, "{name}");
        }
    }
}
