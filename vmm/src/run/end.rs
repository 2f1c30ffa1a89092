//! How a run ended, and the exit status that says so.

use std::time::Duration;

use refault_machine::config::ExitReason;
pub use refault_os::bug::FAILED;
use refault_os::stop::StopSignal;

/// The timeout expired.
pub const TIMED_OUT: u8 = 124;
/// The guest ended without the command's status: it crashed, was reset, powered off or halted.
pub const NO_STATUS: u8 = 123;
/// The guest crashed, was reset or hung after the command had ended.
pub const LATE_CRASH: u8 = 122;
/// The command succeeded, and the guest's log has a line of trouble (`--fail-on-warn`).
pub const WARNED: u8 = 121;

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// The signal to us that stopped it.
    pub stopped: Option<StopSignal>,
    /// The command's exit status, 128 and the signal's number if it was killed. None if the guest did not report it.
    pub status: Option<i32>,
    /// Why the machine stopped.
    pub reason: ExitReason,
    /// The limit that it exceeded, if that stopped it.
    pub timeout: Option<Duration>,
    /// There was no command: for such a guest, to power off or halt is success.
    pub bare: bool,
    /// The end of the kernel's log.
    pub log: String,
    /// Lines of trouble in the whole log: see [`super::guest_log`].
    pub findings: Vec<String>,
}

impl RunEnd {
    /// The exit status for the shell.
    pub fn code(&self) -> u8 {
        if let (Some(stop), ExitReason::Stopped) = (self.stopped, &self.reason) {
            return stop.code();
        }
        match (self.timeout, self.status, &self.reason) {
            (Some(_), ..) => TIMED_OUT,
            (None, _, ExitReason::Failed(_)) => FAILED,
            (None, Some(status), ExitReason::PowerOff | ExitReason::Halted) => status.to_le_bytes()[0],
            (None, Some(_), _) => LATE_CRASH,
            (None, None, ExitReason::PowerOff | ExitReason::Halted) if self.bare && !self.panicked() => 0,
            (None, None, _) => NO_STATUS,
        }
    }

    /// As [`Self::code`], but [`WARNED`] for a success with a line of trouble in the guest's log.
    pub fn strict_code(&self) -> u8 {
        match self.code() {
            0 if !self.findings.is_empty() => WARNED,
            code => code,
        }
    }

    /// What went wrong, in words for the user; none if the run ended as it should.
    pub fn complaint(&self) -> Option<String> {
        if let (Some(stop), ExitReason::Stopped) = (self.stopped, &self.reason) {
            return Some(format!("{}: the guest was stopped", stop.name()));
        }
        let before = if self.bare { "" } else { " before the command ended" };
        let what = match (self.timeout, self.status, &self.reason) {
            (None, Some(_), ExitReason::PowerOff | ExitReason::Halted) => return None,
            (None, None, ExitReason::PowerOff | ExitReason::Halted) if self.code() == 0 => return None,
            (Some(limit), _, ExitReason::Stopped) => {
                format!("the guest was stopped after {} s (--timeout)", limit.as_secs())
            }
            (Some(limit), ..) => {
                return Some(format!("not all output had been read after {} s (--timeout)", limit.as_secs()));
            }
            (.., ExitReason::Failed(why)) => format!("the machine failed: {why}"),
            (None, Some(status), reason) => {
                let what = match reason {
                    _ if self.panicked() => "the guest's kernel panicked",
                    ExitReason::Stopped => "the guest did not power off",
                    ExitReason::TripleFault => "the guest crashed with a triple fault",
                    _ => "the guest was reset",
                };
                format!("{what} after the command had ended with status {status}")
            }
            _ if self.panicked() => "the guest's kernel panicked".to_string(),
            (.., ExitReason::TripleFault) => "the guest crashed with a triple fault".to_string(),
            (.., ExitReason::Reset) => format!("the guest was reset{before}"),
            (.., ExitReason::PowerOff) => format!("the guest was powered off{before}"),
            (.., ExitReason::Halted) => format!("the guest was halted{before}"),
            (.., ExitReason::Stopped) => format!("the guest was stopped{before}"),
        };
        Some(match self.log.trim() {
            "" => format!("{what}; its kernel logged nothing"),
            log => format!("{what}; its log ends with:\n{}", quoted(log)),
        })
    }

    fn panicked(&self) -> bool {
        self.log.contains("Kernel panic")
    }
}

/// Lines of the guest, marked so that none can be taken for one of ours.
fn quoted(log: &str) -> String {
    log.lines().map(|line| format!("| {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(status: Option<i32>, reason: ExitReason) -> RunEnd {
        RunEnd {
            stopped: None,
            status,
            reason,
            timeout: None,
            bare: false,
            log: String::new(),
            findings: Vec::new(),
        }
    }

    #[test]
    fn the_commands_status_is_the_exit_status() {
        for status in [0, 1, 7, 137, 255] {
            let end = end(Some(status), ExitReason::PowerOff);
            assert_eq!((i32::from(end.code()), end.complaint()), (status, None));
        }
    }

    #[test]
    fn a_guest_that_ends_without_a_status_has_its_own_exit_status() {
        let reasons = [ExitReason::PowerOff, ExitReason::Halted, ExitReason::Reset, ExitReason::TripleFault];
        for reason in reasons {
            let end = end(None, reason);
            assert_eq!(end.code(), NO_STATUS);
            assert!(end.complaint().is_some_and(|text| text.contains("the guest")));
        }
    }

    #[test]
    fn a_guest_without_a_command_may_only_power_off_or_halt() {
        let bare = |reason| RunEnd { bare: true, ..end(None, reason) };
        for reason in [ExitReason::PowerOff, ExitReason::Halted] {
            assert_eq!((bare(reason.clone()).code(), bare(reason).complaint()), (0, None));
        }
        for reason in [ExitReason::Reset, ExitReason::TripleFault] {
            assert_eq!(bare(reason.clone()).code(), NO_STATUS);
            assert!(bare(reason).complaint().is_some());
        }
        let mut panicked = bare(ExitReason::Halted);
        panicked.log = "Kernel panic - not syncing\n".into();
        assert_eq!(panicked.code(), NO_STATUS, "with panic=0 it may halt");
        assert!(panicked.complaint().is_some_and(|text| text.starts_with("the guest's kernel panicked")));
    }

    #[test]
    fn a_failure_of_refault_is_not_blamed_on_the_guest() {
        for status in [None, Some(0), Some(1)] {
            let end = end(status, ExitReason::Failed("KVM gave up".into()));
            assert_eq!(end.code(), FAILED);
            assert!(end.complaint().is_some_and(|text| text.contains("KVM gave up")));
        }
    }

    #[test]
    fn a_crash_after_the_command_is_reported() {
        for reason in [ExitReason::Reset, ExitReason::TripleFault, ExitReason::Stopped] {
            let end = end(Some(0), reason);
            assert_eq!(end.code(), LATE_CRASH);
            assert!(
                end.complaint()
                    .is_some_and(|text| text.contains("after the command had ended with status 0"))
            );
        }
    }

    #[test]
    fn a_signal_is_not_a_crash_of_the_guest() {
        for status in [None, Some(0)] {
            let end = RunEnd { stopped: Some(StopSignal::INTERRUPT), ..end(status, ExitReason::Stopped) };
            assert_eq!(end.code(), 130);
            assert_eq!(end.complaint().as_deref(), Some("SIGINT: the guest was stopped"));
        }
        let late = RunEnd { stopped: Some(StopSignal::INTERRUPT), ..end(Some(7), ExitReason::PowerOff) };
        assert_eq!((late.code(), late.complaint()), (7, None), "the signal came after the end");
    }

    #[test]
    fn a_warning_fails_a_success_with_the_strict_code_only() {
        let warned = |status| RunEnd {
            findings: vec!["WARNING: at x.c".into()],
            ..end(Some(status), ExitReason::PowerOff)
        };
        assert_eq!((warned(0).code(), warned(0).strict_code(), warned(3).strict_code()), (0, WARNED, 3));
    }

    #[test]
    fn an_expired_timeout_takes_precedence() {
        let mut end = end(None, ExitReason::Stopped);
        end.timeout = Some(Duration::from_secs(5));
        assert_eq!(end.code(), TIMED_OUT);
        assert!(end.complaint().is_some_and(|text| text.contains("stopped after 5 s")));
        (end.status, end.reason) = (Some(0), ExitReason::PowerOff);
        assert_eq!(end.code(), TIMED_OUT);
        assert!(end.complaint().is_some_and(|text| text.contains("not all output had been read")));
    }

    #[test]
    fn a_panic_is_reported_with_its_log() {
        let mut end = end(None, ExitReason::Reset);
        end.log = "[    1.0] Kernel panic - not syncing: oops\nrefault: all is well\n".into();
        let complaint = end.complaint().expect("a complaint");
        assert!(complaint.contains("panicked") && complaint.contains("not syncing: oops"), "{complaint}");
        assert!(complaint.ends_with("\n| refault: all is well"), "the guest's lines are marked: {complaint}");
    }
}
