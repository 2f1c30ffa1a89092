//! Reliable connections (RC) in packets: what a queue pair sends, and what it makes of what it receives.
//!
//! A [`Requester`] turns requests into packets: a window, acknowledgements, retransmission, receiver-not-ready delays. A
//! [`Responder`] turns packets into steps to execute, and their results into replies: sequence, duplicates, replays. Both know
//! numbers only. Bytes, keys, pages, completions and time belong to the caller, and so each packet takes two calls: one says
//! what it is ([`Requester::next`], [`Responder::receive`]), and one that it was sent or executed ([`Requester::sent`],
//! [`Responder::done`]). In between the caller copies. If that must wait for a page, it asks again later, and nothing has
//! changed; if the packet is dropped instead, the rules are those for a lost one.
//!
//! Whatever comes from the wire is bounded here: no state grows by what a packet says.
//!
//! Sources: InfiniBand Architecture Specification volume 1, chapter 9.7; for what it leaves open, Linux
//! drivers/infiniband/sw/rxe.
//!
//! # Example
//!
//! A SEND of five bytes that arrives at once:
//!
//! ```
//! use refault_roce::{Mtu, Psn};
//! use refault_transport::{Arrival, Request, Requester, RequesterConfig, Responder, ResponderConfig, Verb};
//!
//! let mut requester = Requester::new(RequesterConfig::new(Mtu::LARGEST, 0x12), Psn::new(7));
//! let mut responder = Responder::new(ResponderConfig::new(Mtu::LARGEST, 0x11), Psn::new(7));
//! let request = Request { verb: Verb::Send { immediate: None }, length: 5, solicited: false, fence: false };
//! let id = requester.post(request).unwrap();
//!
//! let outgoing = requester.next(0).unwrap();
//! requester.sent(0);
//! let Arrival::Execute(step) = responder.receive(&outgoing.packet, 5) else { panic!() };
//! assert!(step.first && step.last.is_some());
//! responder.done();
//!
//! let reply = responder.next_reply().unwrap();
//! responder.replied();
//! requester.receive(&reply.packet, 0, 0);
//! assert_eq!(requester.next_completion().unwrap().id, id);
//! ```

#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod config;
mod request;
mod requester;
mod responder;

pub use config::{ReadReplay, RequesterConfig, ResponderConfig};
pub use request::{Request, Verb};
pub use requester::{Completion, Failure, Heard, Outgoing, Requester, RequesterCounters};
pub use responder::{Action, Arrival, Last, Reply, Responder, ResponderCounters, Source, Step};
