//! Completion, event and shared receive queues: what their rings mean, whatever their layout.

mod arming;
pub(crate) mod completion;
pub(crate) mod event;
mod index;
pub(crate) mod layout;
pub(crate) mod moderation;
mod numbered;
pub(crate) mod shared;

pub(crate) use index::{phase, published};
