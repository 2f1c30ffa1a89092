//! Scenario files of the lab, and settings on its command line.
//!
//! **Invariant.** A file is accepted, or refused with an error that names a place in it. What is accepted is the same
//! when it is written out and read back.

use refault_lab::scenario::{Draft, Scenario};

use super::text::{check_error, text};

const SECTIONS: &[&str] = &["load", "device", "guest", "churn", "wire", "timing", "load.load", "[axis]", ""];
const KEYS: &[&str] = &[
    "name",
    "seed",
    "requests",
    "preset",
    "pattern",
    "message",
    "region",
    "queue_pairs",
    "depth",
    "rate",
    "write_share",
    "cold_share",
    "warm",
    "large_pages",
    "stride",
    "theta",
    "arrival",
    "mode",
    "credits",
    "page_request_order",
    "atc_entries",
    "iotlb_entries",
    "workers",
    "fault_window",
    "remote_faults",
    "min_rnr_timer",
    "fault_timeout",
    "handlers",
    "locked_share",
    "batch",
    "prefetch",
    "major_share",
    "operation",
    "pages",
    "minor",
    "major",
    "doorbell",
    "bytes_per_us",
    "load.depth",
    "bystanders",
    "loss",
    "delay",
    "window",
    "buffer",
    "prefault",
    "damming",
    "ack_timeout",
    "retries",
    "device",
    "unknown",
];

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let text = text(bytes, SECTIONS, KEYS);
    let mut draft = match Draft::parse("input.toml", &text) {
        Ok(draft) => draft,
        Err(error) => return check_error(&error, &text),
    };
    check(&draft, &text, true);
    // The first line once more, as a setting on top of the file.
    let setting = text.lines().next().unwrap_or_default();
    if draft.set(setting).is_ok() {
        check(&draft, &text, false);
    }
}

fn check(draft: &Draft, text: &str, only_the_file: bool) {
    match draft.check() {
        Ok(scenario) => {
            let written = scenario.to_toml();
            let back = Scenario::from_toml("written.toml", &written);
            let back = back.unwrap_or_else(|error| panic!("{error} in what was written:\n{written}"));
            assert_eq!(back, scenario, "{written}");
        }
        // Of a setting, the place is in the setting.
        Err(error) if only_the_file => check_error(&error, text),
        Err(_) => {}
    }
}
