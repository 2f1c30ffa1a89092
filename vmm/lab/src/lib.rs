//! The lab: the NIC, the IOMMU and a model guest on a virtual clock.
//!
//! A [`Scenario`](scenario::Scenario) describes the load, the device, the guest, and the duration of each step. An experiment
//! simulates it in one thread and returns an [`ExperimentOutcome`](outcome::ExperimentOutcome). A scenario and its seed
//! determine every byte of the result on every machine. This crate uses no KVM, no threads, no wall clock and no files.
//!
//! ```
//! use refault_lab::{engine, figures::Figures, scenario::Scenario};
//!
//! // 100 cold writes of a page each. Handling a fault takes 20 us, and no other step takes time.
//! let text = r#"
//!     requests = 100
//!     preset = "none"
//!     [load]
//!     message = "4 KiB"
//!     region = "4 MiB"
//!     cold_share = 1.0
//!     [timing]
//!     minor = "20 us"
//! "#;
//! let scenario = Scenario::from_toml("cold.toml", text)?;
//! let outcome = engine::run(&scenario)?;
//! let figures = Figures::of(&scenario, &outcome);
//! assert_eq!(figures.whole("faults"), 100);
//! assert_eq!(figures.whole("fault_p50_ns"), 20_000);
//! assert_eq!(figures.real("requests_per_s"), 50_000.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(
    not(test),
    warn(
        clippy::cast_lossless,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

pub mod counts;
pub mod engine;
pub mod facts;
pub mod figures;
pub mod machine;
pub mod matrix;
pub mod outcome;
pub mod published;
pub mod scenario;
pub mod shipped;
pub mod sweep;
