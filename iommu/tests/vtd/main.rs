//! The remapping unit from outside: everything here goes through registers, guest memory and the fabric's
//! traits, as a guest and its devices do.

mod bad_input;
mod concurrency;
mod conditions;
mod devices;
mod drains;
mod events;
mod faults;
mod invalidation;
mod linux_bring_up;
mod oracle;
mod page_requests;
mod registers;
mod statistics;
mod support;
mod translation;
mod walk_against_reference;
