//! The fuzz targets as ordinary tests: each runs with the inputs that are stored for it, and with a few hundred random
//! ones. The random ones are the same in every run.

use std::path::{Path, PathBuf};

use refault_tests::fuzz::TARGETS;

/// Random inputs of each target.
const RANDOM: u64 = 300;
/// Longest random input in bytes.
const LENGTH_MAX: u64 = 600;

/// Folder of the stored inputs.
fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// Numbers that depend on the seed alone (Marsaglia, Xorshift RNGs, 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        for (left, shift) in [(true, 13), (false, 7), (true, 17)] {
            self.0 ^= if left { self.0 << shift } else { self.0 >> shift };
        }
        self.0
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.next() % LENGTH_MAX;
        (0..length).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

/// Runs `target` with `input`, and names the input if it fails.
fn run(target: &str, input: &[u8], name: &str) {
    let target = TARGETS.iter().find(|known| known.name == target).expect("a target");
    let result = std::panic::catch_unwind(|| (target.run)(input));
    assert!(result.is_ok(), "{} fails with {name}: {input:02x?}", target.name);
}

fn replay(target: &str) {
    run(target, &[], "no bytes");
    let folder = corpus().join(target);
    let stored = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut stored: Vec<_> = stored.map(|entry| entry.expect("a readable folder").path()).collect();
    stored.sort();
    assert!(!stored.is_empty(), "no inputs are stored for {target}");
    for path in stored {
        run(target, &std::fs::read(&path).expect("a readable file"), &path.display().to_string());
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for index in 0..RANDOM {
        run(target, &random.bytes(), &format!("random input {index}"));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        /// The tests of this file, for a check that none is missing.
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    iommu_registers
    iommu_queue
    iommu_tables
    iommu_requests
    nic_registers
    nic_commands
    nic_queues
    nic_on_demand
    port_frames
    guest_ports
    guest_archive
    guest_trace
    lab_scenario
    timing_file
    roce_frame
}

#[test]
fn every_target_is_tested_and_has_a_program_and_inputs() {
    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED);
    let manifest = std::fs::read_to_string(corpus().with_file_name("Cargo.toml")).expect("a manifest");
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has no program in tests/fuzz");
    }
}
