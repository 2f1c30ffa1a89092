//! A guest without a CPU: page tables, fault handler, driver steps.
