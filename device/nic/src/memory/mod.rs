//! Memory: how everything in the device reaches it.

pub(crate) mod atc;
pub(crate) mod copy;
pub(crate) mod guard;
pub(crate) mod list;
pub(crate) mod on_demand;
pub(crate) mod page_table;
pub(crate) mod port;
pub(crate) mod region;
