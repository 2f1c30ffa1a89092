//! Observation: turns probe events into records with a time for every stage ([`trace`]), and writes a run's figures
//! ([`summary`]) and report ([`report`]) into its folder ([`folder`]).

#![cfg_attr(
    not(test),
    warn(
        clippy::cast_lossless,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

pub mod folder;
pub mod numbers;
pub mod report;
pub mod save;
pub mod summary;
pub mod trace;
