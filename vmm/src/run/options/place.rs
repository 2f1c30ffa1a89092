//! Where a guest runs: the options that choose it, and what that means for its time.

use std::path::PathBuf;

use anyhow::Result;

use crate::run::Place;
use refault_hosts::qemu::Emulator;
use refault_hosts::{
    choice::{Chosen, Host, choose},
    nested::inside,
};
use refault_observe::report::TimeBase;
use refault_os::message::note;

/// The choice, as options.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct HostArgs {
    /// What runs the guest
    #[arg(long, value_enum, default_value_t, env = "REFAULT_HOST")]
    host: Host,
    /// QEMU to use, with --host qemu: version 10.1 or later [default: the one of Debian 13's backports, fetched once]
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
}

impl HostArgs {
    /// Decides, and says in one line what and why.
    ///
    /// # Errors
    /// What was asked for cannot be had.
    pub fn choose(&self) -> Result<Chosen> {
        let choice = choose(self.host)?;
        note(&choice.why);
        Ok(choice.host)
    }

    /// Where devices of this process are to be plugged in.
    ///
    /// # Errors
    /// There is no QEMU, and none can be fetched.
    pub fn place(&self, chosen: Chosen) -> Result<Place> {
        Ok(match chosen {
            Chosen::Qemu => Place::Qemu(Emulator::find(self.qemu.as_deref())?),
            Chosen::Refault | Chosen::Nested => Place::Kvm,
        })
    }
}

impl Place {
    /// Whose time passes there.
    pub fn time(&self) -> TimeBase {
        match self {
            Self::Kvm if !inside() => TimeBase::Real,
            Self::Kvm | Self::Qemu(_) => TimeBase::Emulated,
        }
    }

    /// Its name in records of a run.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kvm if inside() => "nested",
            Self::Kvm => "refault",
            Self::Qemu(_) => "qemu",
        }
    }
}
