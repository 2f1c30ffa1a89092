//! The lab against what is known without it: queueing theory, and published tables.

mod queueing;
