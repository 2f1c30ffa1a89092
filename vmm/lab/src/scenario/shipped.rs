//! Scenarios that come with refault.

use crate::shipped::Shipped;

/// All shipped scenarios.
pub const SCENARIOS: Shipped = Shipped(&[
    ("cold-4k", include_str!("shipped/cold-4k.toml")),
    ("batched-4m", include_str!("shipped/batched-4m.toml")),
    ("page-by-page-4m", include_str!("shipped/page-by-page-4m.toml")),
    ("evict-random", include_str!("shipped/evict-random.toml")),
    ("few-credits", include_str!("shipped/few-credits.toml")),
    ("small-atc", include_str!("shipped/small-atc.toml")),
    ("major-faults", include_str!("shipped/major-faults.toml")),
    ("slow-faults", include_str!("shipped/slow-faults.toml")),
    ("retried-faults", include_str!("shipped/retried-faults.toml")),
    ("wire-faults", include_str!("shipped/wire-faults.toml")),
    ("wire-batched-4m", include_str!("shipped/wire-batched-4m.toml")),
    ("packet-damming", include_str!("shipped/packet-damming.toml")),
]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use crate::shipped::no_files;

    #[test]
    fn every_shipped_scenario_is_valid_and_named_like_its_file() {
        for (name, title) in SCENARIOS.titles() {
            let scenario = Scenario::open(name, &no_files).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(scenario.name, name);
            assert!(title.len() > 20, "{name} says what it shows");
        }
    }
}
