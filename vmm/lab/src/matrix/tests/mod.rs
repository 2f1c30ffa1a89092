//! What each policy promises, cell by cell; and that no order of things breaks the promise of the faulting ones.

mod leases;
mod promises;
mod random;
