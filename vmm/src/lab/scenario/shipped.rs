//! Scenarios that come with refault, each an answer to a question that its first lines ask.

/// Names and files, in the order in which they are listed.
const FILES: [(&str, &str); 9] = [
    ("cold-4k", include_str!("shipped/cold-4k.toml")),
    ("batched-4m", include_str!("shipped/batched-4m.toml")),
    ("page-by-page-4m", include_str!("shipped/page-by-page-4m.toml")),
    ("evict-random", include_str!("shipped/evict-random.toml")),
    ("few-credits", include_str!("shipped/few-credits.toml")),
    ("small-atc", include_str!("shipped/small-atc.toml")),
    ("major-faults", include_str!("shipped/major-faults.toml")),
    ("slow-faults", include_str!("shipped/slow-faults.toml")),
    ("retried-faults", include_str!("shipped/retried-faults.toml")),
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
    use crate::lab::scenario::Scenario;

    #[test]
    fn every_shipped_scenario_is_right_and_named_as_its_file() {
        for name in names() {
            let scenario = Scenario::open(name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(scenario.name, name);
            assert!(title(name).len() > 20, "{name} says what it shows");
        }
    }
}
