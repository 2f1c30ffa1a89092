//! Which accelerator runs the guest: the machine's own KVM, or one inside a machine that QEMU emulates.

mod agent;
mod first_cpu;
mod nested;
mod outer;
mod probe;
mod settle;
mod tsc;

pub use agent::serve;
pub use nested::{Nested, inside};
pub use outer::{OUTER_INIT, OUTER_LAYOUT, outer_initramfs};
pub use probe::{Verdict, probe};

use anyhow::{Result, bail};

use crate::host::tools::{EMULATION_TOOLS, install_line, missing};

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Accel {
    /// KVM if it runs code, else emulation.
    #[default]
    Auto,
    /// The machine's own KVM.
    Kvm,
    /// KVM inside a machine that QEMU emulates in software: slow, runs everywhere.
    Tcg,
}

/// What it will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Whether the machine's own KVM runs the guest.
    pub kvm: bool,
    /// One line that says why.
    pub why: String,
}

/// Decides, and for KVM makes sure that it works.
///
/// # Errors
/// KVM was asked for and cannot run code: the message says why, and what runs instead.
pub fn choose(accel: Accel) -> Result<Choice> {
    decide(accel, probe)
}

fn decide(accel: Accel, probe: impl FnOnce() -> Verdict) -> Result<Choice> {
    if accel == Accel::Tcg {
        return Ok(Choice {
            kvm: false,
            why: "accelerator tcg, as asked: QEMU emulates a machine with KVM".into(),
        });
    }
    match (probe(), accel) {
        (Verdict::Works, Accel::Auto) => {
            Ok(Choice { kvm: true, why: "accelerator kvm: /dev/kvm runs code, SSE included".into() })
        }
        (Verdict::Works, _) => Ok(Choice { kvm: true, why: "accelerator kvm, as asked".into() }),
        (verdict, Accel::Auto) => {
            Ok(Choice { kvm: false, why: format!("accelerator tcg, emulated by QEMU: {verdict}") })
        }
        (verdict, _) => bail!("--accel kvm: {verdict}; --accel tcg runs without it{}", emulator_hint()),
    }
}

/// What to install for emulation, if anything.
fn emulator_hint() -> String {
    match missing(EMULATION_TOOLS).as_slice() {
        [] => String::new(),
        lacking => format!(" (first, as root: {})", install_line(lacking)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> Verdict {
        Verdict::Broken("KVM stopped with an internal error".into())
    }

    #[test]
    fn auto_takes_kvm_only_when_it_runs_code() {
        assert!(decide(Accel::Auto, || Verdict::Works).expect("a choice").kvm);
        let choice = decide(Accel::Auto, broken).expect("a choice");
        assert!(!choice.kvm && choice.why.contains("internal error"), "{}", choice.why);
    }

    #[test]
    fn what_was_asked_for_is_taken() {
        assert!(!decide(Accel::Tcg, || Verdict::Works).expect("a choice").kvm);
        assert!(decide(Accel::Kvm, || Verdict::Works).expect("a choice").kvm);
    }

    #[test]
    fn kvm_that_cannot_be_had_is_an_error_with_the_way_out() {
        let error =
            decide(Accel::Kvm, || Verdict::Absent("there is no /dev/kvm".into())).expect_err("absent");
        let text = error.to_string();
        assert!(text.contains("no /dev/kvm") && text.contains("--accel tcg"), "{text}");
    }
}
