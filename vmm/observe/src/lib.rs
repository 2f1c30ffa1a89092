//! Observation: turns probe events into records with a time for every stage ([`trace`]), and writes a run's figures
//! ([`summary`]) and report ([`report`]) into its folder ([`folder`]).

#![warn(clippy::missing_errors_doc)]

pub mod folder;
pub mod report;
pub mod save;
pub mod summary;
pub mod trace;
