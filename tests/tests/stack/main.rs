//! NIC, IOMMU and model guest in one process: on one thread where a test is about an order of events, on
//! several where it is about a race.

mod bad_input;
mod basics;
mod bring_up;
mod hostile;
mod properties;
mod races;
mod storms;
mod support;
mod teardown;
mod verbs;
