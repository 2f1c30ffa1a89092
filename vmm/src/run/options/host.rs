//! What runs the guest: the options that choose it, and how its clock relates to real time.

use std::path::PathBuf;

use anyhow::Result;

use crate::run::Backend;
use refault_hosts::qemu::Emulator;
use refault_hosts::{
    choice::{Chosen, Host, choose},
    nested::inside,
};
use refault_observe::report::TimeBase;
use refault_os::message::note;

/// Options that choose what runs the guest.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct HostArgs {
    /// What runs the guest
    #[arg(long, value_enum, default_value_t, env = "REFAULT_HOST")]
    host: Host,
    /// QEMU to use, with --host qemu: version 10.1 or later [default: the one of Debian 13's backports, downloaded once]
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
}

impl HostArgs {
    /// Chooses, and prints the choice and its reason in one line.
    ///
    /// # Errors
    /// The requested host is not available.
    pub fn choose(&self) -> Result<Chosen> {
        let choice = choose(self.host)?;
        note(&choice.why);
        Ok(choice.host)
    }

    /// The backend for devices in this process.
    ///
    /// # Errors
    /// There is no QEMU, and none can be downloaded.
    pub fn backend(&self, chosen: Chosen) -> Result<Backend> {
        Ok(match chosen {
            Chosen::Qemu => Backend::Qemu(Emulator::find(self.qemu.as_deref())?),
            Chosen::Refault | Chosen::Nested => Backend::Kvm,
        })
    }
}

impl Backend {
    /// Whether time there is real or emulated.
    pub fn time(&self) -> TimeBase {
        match self {
            Self::Kvm if !inside() => TimeBase::Real,
            Self::Kvm | Self::Qemu(_) => TimeBase::Emulated,
        }
    }

    /// Its name in a run's records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kvm if inside() => "nested",
            Self::Kvm => "refault",
            Self::Qemu(_) => "qemu",
        }
    }
}
