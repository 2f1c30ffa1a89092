//! The wire between network ports, without threads and clocks.
//!
//! A [`Link`] joins two ports. What happens to the frames of each direction is in [`Impairments`]: loss, delay, a rate
//! with a bounded queue, reordering, duplicates, flipped bits, an outage. Each happens by chance, from a random stream of
//! its own, or by a [`Rule`] that names the frame: "the third READ RESPONSE MIDDLE". The same seed and the same frames at
//! the same times have the same outcome.
//!
//! What a wire leaves behind is a capture of the frames that passed, with comments: this one was dropped, that one was
//! held ([`Capture`], and [`frames`] to read it again).
//!
//! # Example
//!
//! ```
//! use refault_bus::wire::EthernetFrame;
//! use refault_link::{End, Event, Impairments, Link};
//!
//! let slow: Impairments = "delay=10us".parse().unwrap();
//! let mut link = Link::new([slow, Impairments::default()], 0);
//! let frame = EthernetFrame { bytes: vec![0; 64], sealed: true };
//!
//! let fate = link.decide(End::A, &frame, 500);
//! assert_eq!(fate.comment().as_deref(), Some("delayed by 10us"));
//! assert_eq!(link.carry(End::A, frame.clone(), &fate), None, "it is on its way");
//! assert_eq!(link.next_due(), Some(10_500));
//! assert_eq!(link.due(10_500), Some(Event::Frame { to: End::B, frame }));
//! ```

#![warn(
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod chance;
mod direction;
mod fate;
mod impairments;
mod link;
mod pcapng;
mod reader;
mod rule;
mod units;

pub use direction::Counters;
pub use fate::{Fate, Loss};
pub use impairments::{Impairments, SpecError};
pub use link::{End, Event, Link};
pub use pcapng::{Capture, Direction, Sighting};
pub use reader::{CaptureError, Captured, frames};
pub use rule::{Action, Frames, Rule};
pub use units::Rate;
