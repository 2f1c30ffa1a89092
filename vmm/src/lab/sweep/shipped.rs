//! Sweeps that come with refault.

/// Names and files, in the order in which they are listed.
const FILES: [(&str, &str); 4] = [
    ("credits-by-handlers", include_str!("shipped/credits-by-handlers.toml")),
    ("batch-by-size", include_str!("shipped/batch-by-size.toml")),
    ("fault-rate", include_str!("shipped/fault-rate.toml")),
    ("retry-rate", include_str!("shipped/retry-rate.toml")),
];

/// Names of all.
pub fn names() -> Vec<&'static str> {
    FILES.iter().map(|(name, _)| *name).collect()
}

/// The file of that name.
pub fn text(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// What it shows: the first line of its comment.
pub fn title(name: &str) -> &'static str {
    let first = text(name).and_then(|text| text.lines().next()).unwrap_or_default();
    first.trim_start_matches(['#', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::sweep::Plan;

    #[test]
    fn every_point_of_every_shipped_sweep_is_a_scenario() {
        for name in names() {
            let plan = Plan::open(name).unwrap_or_else(|error| panic!("{error}"));
            assert!(plan.name() == name && plan.len() > 1, "{name}");
        }
    }
}
