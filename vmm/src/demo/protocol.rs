//! The guest program's events: one JSON object per line on the control channel
//! (guest-driver/workload/demo/control.h). What the guest writes is data: a line that is no event is no event.

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
    /// How the device finds the memory: `pasid`, `odp` or `pinned`.
    #[serde(deserialize_with = "shown")]
    pub mode: String,
    /// Size of the file's mappings: `4k` or `2m`.
    #[serde(deserialize_with = "shown")]
    pub mapping: String,
}

impl Subject {
    /// Mode and mappings in one, as records and reports name them.
    pub fn label(&self) -> String {
        mode_label(&self.mode, &self.mapping)
    }
}

/// Text of the guest's that will stand in a line of ours: nothing in it moves the cursor.
fn shown<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    String::deserialize(from).map(|text| visible(&text).replace('\n', " "))
}

/// The guest's counters of the scenario that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct Counters {
    /// Since the scenario began, by the guest's clock.
    pub seconds: f64,
    /// What the filesystem was made to do.
    pub operations: u64,
    /// Acknowledged RDMA WRITEs.
    pub writes: u64,
    /// Their payload.
    pub bytes_written: u64,
    /// Blocks of 4 KiB that lie elsewhere, by the file's extent maps.
    pub blocks_moved: u64,
    /// Bytes read back as expected.
    pub bytes_verified: u64,
    /// Bytes read back otherwise.
    pub bytes_wrong: u64,
}

/// One line of the guest's.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// What will be done.
    Plan {
        /// As `uname -r` prints it.
        #[serde(deserialize_with = "shown")]
        kernel: String,
        /// Size of the file.
        file_bytes: u64,
        /// Queue pairs that write at the same time.
        queue_pairs: u32,
        /// Multiplier of every scenario's goals.
        scale: f64,
        /// How fast the guest is.
        speed: Speed,
        /// All scenarios in their order.
        scenarios: Vec<Subject>,
    },
    /// A scenario begins.
    Begin(Subject),
    /// How far it is.
    Progress {
        /// Which.
        #[serde(flatten)]
        subject: Subject,
        /// How far.
        #[serde(flatten)]
        counters: Counters,
    },
    /// It has ended, and no DMA is under way.
    End {
        /// Which.
        #[serde(flatten)]
        subject: Subject,
        /// `pass`, `slow` or `fail`.
        result: RunResult,
        /// Why it failed, how far it came, or a remark.
        #[serde(deserialize_with = "shown")]
        reason: String,
        /// What it came to.
        #[serde(flatten)]
        counters: Counters,
    },
    /// What xfs_repair says of the file system after all scenarios with mappings of a size.
    Check {
        /// The size.
        #[serde(deserialize_with = "shown")]
        mapping: String,
        /// `pass` or `fail`.
        result: RunResult,
    },
    /// The guest program is through.
    Done {
        /// `pass`, `slow` or `fail`.
        result: RunResult,
    },
}

impl Event {
    /// Reads one line.
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
        let Some(Event::End { subject, result, reason, counters }) = Event::parse(line) else {
            panic!("no event");
        };
        assert_eq!((subject.scenario.as_str(), subject.label().as_str()), ("punch", "odp 4k"));
        assert_eq!((result, reason.as_str()), (RunResult::Pass, "a \"b\""));
        assert_eq!((counters.operations, counters.blocks_moved, counters.seconds), (8, 7, 2.5));
        let begin = Event::parse(
            "{\"event\":\"begin\",\"scenario\":\"kill\",\"mode\":\"pasid\",\"mapping\":\"2m\"}\r\n",
        );
        assert_eq!(
            begin,
            Some(Event::Begin(Subject {
                scenario: "kill".into(),
                mode: "pasid".into(),
                mapping: "2m".into()
            }))
        );
    }

    #[test]
    fn what_the_guest_writes_moves_no_cursor() {
        let line = r#"{"event":"begin","scenario":"a\u001b[2J\nb","mode":"odp","mapping":"4k"}"#;
        let Some(Event::Begin(subject)) = Event::parse(line) else { panic!("no event") };
        assert_eq!(subject.scenario, "a\\u{1b}[2J b");
    }

    #[test]
    fn what_is_no_event_is_none() {
        for line in ["", "ready", "{}", r#"{"event":"end"}"#, r#"{"event":"done","result":"perhaps"}"#] {
            assert_eq!(Event::parse(line), None, "{line}");
        }
    }
}
