//! The choice of the host: our own VMM on this machine's KVM, QEMU, or our own VMM inside a machine that QEMU emulates.

use anyhow::{Result, bail};
use refault_machine::kvm::probe::{KvmStatus, probe};

/// The host that the user requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Host {
    /// Our own VMM if KVM runs code here, else QEMU.
    #[default]
    Auto,
    /// Our own VMM, on this machine's KVM.
    Refault,
    /// Stock QEMU, which emulates the CPUs; the devices are in our process.
    Qemu,
    /// Our own VMM on KVM inside a machine that QEMU emulates: slow, for testing the VMM where there is no KVM.
    Nested,
}

/// The host that runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// Our own VMM on this machine's KVM.
    Refault,
    /// Stock QEMU, with the devices in our process.
    Qemu,
    /// Our own VMM, one level down.
    Nested,
}

/// The chosen host and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostChoice {
    /// What runs the guest.
    pub host: Chosen,
    /// One line with the reason.
    pub why: String,
}

/// Chooses the host. Unless another is requested, checks that KVM runs code.
///
/// # Errors
/// KVM was requested and cannot run code; the message says why, and which host works without it.
pub fn choose(host: Host) -> Result<HostChoice> {
    decide(host, probe)
}

fn decide(host: Host, probe: impl FnOnce() -> KvmStatus) -> Result<HostChoice> {
    let choice = |host, why: &str| Ok(HostChoice { host, why: why.into() });
    match host {
        Host::Qemu => return choice(Chosen::Qemu, "host qemu, as requested: it emulates the CPUs"),
        Host::Nested => {
            return choice(Chosen::Nested, "host nested, as requested: QEMU emulates a machine with KVM");
        }
        Host::Auto | Host::Refault => {}
    }
    match (probe(), host) {
        (KvmStatus::Works, Host::Auto) => {
            choice(Chosen::Refault, "host refault: /dev/kvm runs code, SSE included")
        }
        (KvmStatus::Works, _) => choice(Chosen::Refault, "host refault, as requested"),
        (verdict, Host::Auto) => {
            choice(Chosen::Qemu, &format!("host qemu, which emulates the CPUs: {verdict}"))
        }
        (verdict, _) => bail!("--host refault: {verdict}; --host qemu runs without it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> KvmStatus {
        KvmStatus::Broken("KVM stopped with an internal error".into())
    }

    #[test]
    fn auto_takes_kvm_only_when_it_runs_code() {
        assert_eq!(decide(Host::Auto, || KvmStatus::Works).expect("a choice").host, Chosen::Refault);
        let choice = decide(Host::Auto, broken).expect("a choice");
        assert!(choice.host == Chosen::Qemu && choice.why.contains("internal error"), "{}", choice.why);
    }

    #[test]
    fn the_requested_host_is_chosen() {
        for (asked, chosen) in
            [(Host::Qemu, Chosen::Qemu), (Host::Nested, Chosen::Nested), (Host::Refault, Chosen::Refault)]
        {
            assert_eq!(decide(asked, || KvmStatus::Works).expect("a choice").host, chosen);
        }
    }

    #[test]
    fn unusable_kvm_is_an_error_with_the_remedy() {
        let error =
            decide(Host::Refault, || KvmStatus::Absent("there is no /dev/kvm".into())).expect_err("absent");
        let text = error.to_string();
        assert!(text.contains("no /dev/kvm") && text.contains("--host qemu"), "{text}");
    }
}
