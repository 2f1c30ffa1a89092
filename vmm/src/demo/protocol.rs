//! The guest program's events: one JSON object per line on the control channel
//! (guest-driver/workload/demo/control.h). The guest is not trusted: a line that is not an event is ignored.

use serde::{Deserialize, Deserializer};

use refault_observe::summary::{RunResult, mode_label};
use refault_os::message::visible;
use refault_os::speed::Speed;

/// A scenario in a mode, with mappings of a size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Subject {
    /// The scenario's name.
    #[serde(deserialize_with = "shown")]
    pub scenario: String,
    /// How the device translates, and where the writer is: `pasid`, `odp`, `pinned`, `remote` or `lossy`.
    #[serde(deserialize_with = "shown")]
    pub mode: String,
    /// Size of the file's mappings: `4k` or `2m`.
    #[serde(deserialize_with = "shown")]
    pub mapping: String,
}

impl Subject {
    /// Mode and mapping size in one string, as in records and reports.
    pub fn label(&self) -> String {
        mode_label(&self.mode, &self.mapping)
    }
}

/// Text of the guest for a line of ours, without control characters.
fn shown<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    String::deserialize(from).map(|text| visible(&text).replace('\n', " "))
}

/// The guest's counters of the running scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct GuestCounters {
    /// Seconds since the scenario began, by the guest's clock.
    pub seconds: f64,
    /// Operations on the filesystem.
    pub operations: u64,
    /// Acknowledged RDMA WRITEs.
    pub writes: u64,
    /// Payload of the writes.
    pub bytes_written: u64,
    /// Blocks of 4 KiB that moved, by the file's extent maps.
    pub blocks_moved: u64,
    /// Bytes read back as expected.
    pub bytes_verified: u64,
    /// Bytes read back wrong.
    pub bytes_wrong: u64,
}

/// One line of the guest.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum DemoEvent {
    /// The scenarios that will run.
    Plan {
        /// As `uname -r` prints it.
        #[serde(deserialize_with = "shown")]
        kernel: String,
        /// Size of the file in bytes.
        file_bytes: u64,
        /// Queue pairs that write at the same time.
        queue_pairs: u32,
        /// Multiplier of every scenario's goals.
        scale: f64,
        /// The guest's speed.
        speed: Speed,
        /// All scenarios in their order.
        scenarios: Vec<Subject>,
    },
    /// A scenario begins.
    Begin(Subject),
    /// Its counters so far.
    Progress {
        /// The scenario.
        #[serde(flatten)]
        subject: Subject,
        /// Its counters so far.
        #[serde(flatten)]
        counters: GuestCounters,
    },
    /// It has ended, and no DMA is in flight.
    End {
        /// The scenario.
        #[serde(flatten)]
        subject: Subject,
        /// `pass`, `slow` or `fail`.
        result: RunResult,
        /// Why it failed, how far it came, or a remark.
        #[serde(deserialize_with = "shown")]
        reason: String,
        /// Its final counters.
        #[serde(flatten)]
        counters: GuestCounters,
    },
    /// The result of xfs_repair after all scenarios with one size of mappings.
    Check {
        /// The size, `4k` or `2m`.
        #[serde(deserialize_with = "shown")]
        mapping: String,
        /// `pass` or `fail`.
        result: RunResult,
    },
    /// The guest's program has finished.
    Done {
        /// `pass`, `slow` or `fail`.
        result: RunResult,
    },
}

impl DemoEvent {
    /// Parses one line. Returns none if it is not an event.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_the_guest_writes_them() {
        let line = r#"{"event":"end","scenario":"punch","mode":"odp","mapping":"4k","result":"pass","reason":"a \"b\"","seconds":2.500,"operations":8,"writes":100,"bytes_written":4096,"blocks_moved":7,"bytes_verified":64,"bytes_wrong":0,"touches":5,"refused":0}"#;
        let Some(DemoEvent::End { subject, result, reason, counters }) = DemoEvent::parse(line) else {
            panic!("no event");
        };
        assert_eq!((subject.scenario.as_str(), subject.label().as_str()), ("punch", "odp 4k"));
        assert_eq!((result, reason.as_str()), (RunResult::Pass, "a \"b\""));
        assert_eq!((counters.operations, counters.blocks_moved, counters.seconds), (8, 7, 2.5));
        let begin = DemoEvent::parse(
            "{\"event\":\"begin\",\"scenario\":\"kill\",\"mode\":\"pasid\",\"mapping\":\"2m\"}\r\n",
        );
        assert_eq!(
            begin,
            Some(DemoEvent::Begin(Subject {
                scenario: "kill".into(),
                mode: "pasid".into(),
                mapping: "2m".into()
            }))
        );
    }

    #[test]
    fn control_characters_of_the_guest_are_escaped() {
        let line = r#"{"event":"begin","scenario":"a\u001b[2J\nb","mode":"odp","mapping":"4k"}"#;
        let Some(DemoEvent::Begin(subject)) = DemoEvent::parse(line) else { panic!("no event") };
        assert_eq!(subject.scenario, "a\\u{1b}[2J b");
    }

    #[test]
    fn other_lines_are_ignored() {
        for line in ["", "ready", "{}", r#"{"event":"end"}"#, r#"{"event":"done","result":"perhaps"}"#] {
            assert_eq!(DemoEvent::parse(line), None, "{line}");
        }
    }
}
