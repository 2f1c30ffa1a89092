//! Targets of files and channels: what a guest sends to a run, and what users write.

pub mod guest_archive;
pub mod guest_ports;
pub mod guest_trace;
pub mod lab_scenario;
mod text;
pub mod timing_file;
