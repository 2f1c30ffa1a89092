//! What each policy promises, cell by cell, and random sequences of operations under the policies that fault.

mod leases;
mod promises;
mod random;
