//! How a run ended, and the exit status that says so.

use std::time::Duration;

use crate::config::ExitReason;

/// refault itself failed: nothing can be said about the command.
pub const FAILED: u8 = 125;
/// The time was up.
pub const TIMED_OUT: u8 = 124;
/// The guest ended without telling how the command did: it crashed, or was powered off.
pub const NO_STATUS: u8 = 123;

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The command's exit status, 128 and the signal's number if it was killed. None if the guest never said.
    pub status: Option<i32>,
    /// Why the machine stopped.
    pub reason: ExitReason,
    /// Stopped because it took longer than this.
    pub timeout: Option<Duration>,
    /// The end of the kernel's log.
    pub log: String,
}

impl End {
    /// The exit status for the shell.
    pub fn code(&self) -> u8 {
        match (self.timeout, self.status) {
            (Some(_), _) => TIMED_OUT,
            (None, Some(status)) => status.to_le_bytes()[0],
            (None, None) => NO_STATUS,
        }
    }

    /// What the user should be told, if it did not end as it should.
    pub fn complaint(&self) -> Option<String> {
        let what = match (self.timeout, self.status, &self.reason) {
            (None, Some(_), _) => return None,
            (Some(limit), ..) => format!("the guest was stopped after {} s (--timeout)", limit.as_secs()),
            (.., ExitReason::Failed(why)) => format!("the machine failed: {why}"),
            _ if self.panicked() => "the guest's kernel panicked".to_string(),
            (.., ExitReason::TripleFault) => "the guest crashed with a triple fault".to_string(),
            (.., ExitReason::Reset) => "the guest was reset before the command ended".to_string(),
            (.., ExitReason::PowerOff) => "the guest was powered off before the command ended".to_string(),
            (.., ExitReason::Stopped) => "the guest was stopped before the command ended".to_string(),
        };
        Some(match self.log.trim() {
            "" => format!("{what}; its kernel logged nothing"),
            log => format!("{what}; its log ends with:\n{log}"),
        })
    }

    fn panicked(&self) -> bool {
        self.log.contains("Kernel panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(status: Option<i32>, reason: ExitReason) -> End {
        End { status, reason, timeout: None, log: String::new() }
    }

    #[test]
    fn the_commands_status_is_ours() {
        for status in [0, 1, 7, 137, 255] {
            let end = end(Some(status), ExitReason::PowerOff);
            assert_eq!((i32::from(end.code()), end.complaint()), (status, None));
        }
    }

    #[test]
    fn a_guest_that_ends_without_a_word_has_a_status_of_its_own() {
        for reason in [ExitReason::PowerOff, ExitReason::Reset, ExitReason::TripleFault] {
            let end = end(None, reason);
            assert_eq!(end.code(), NO_STATUS);
            assert!(end.complaint().is_some_and(|text| text.contains("the guest")));
        }
    }

    #[test]
    fn time_that_is_up_beats_everything() {
        let mut end = end(None, ExitReason::Stopped);
        end.timeout = Some(Duration::from_secs(5));
        assert_eq!(end.code(), TIMED_OUT);
        assert!(end.complaint().is_some_and(|text| text.contains("5 s")));
    }

    #[test]
    fn a_panic_is_called_one_and_shown() {
        let mut end = end(None, ExitReason::Reset);
        end.log = "[    1.0] Kernel panic - not syncing: oops\n".into();
        let complaint = end.complaint().expect("a complaint");
        assert!(complaint.contains("panicked") && complaint.contains("not syncing: oops"), "{complaint}");
    }
}
