//! The files of a run's folder, each written and read by a module of its own.

pub(super) mod faults;
pub(super) mod faults_read;
pub(super) mod invalidations;
pub(super) mod requests;
pub(super) mod timeline;
pub(super) mod tracks;
