//! NIC, IOMMU and model guest in one process: on one thread to test an order of events, on several to test a race.

mod bad_input;
mod basics;
mod bring_up;
mod hostile;
mod isolation;
mod properties;
mod races;
mod storms;
mod support;
mod teardown;
mod verbs;
