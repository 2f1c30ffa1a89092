//! Timing files, with presets below them.
//!
//! **Invariant.** A file is accepted, or refused with an error that names a place in it. No sample of an accepted one is
//! longer than an hour, and its mean is a number.

use rand_pcg::Pcg64Mcg;
use refault_timing::{LONGEST_NS, Timing, timing_alone, tree};

use super::text::{check_error, text};

const SECTIONS: &[&str] = &["timing", "load", "timing.minor", "[timing]"];

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let text = text(bytes, SECTIONS, Timing::STEPS);
    let timing = match tree::parse("input.toml", &text).and_then(|root| timing_alone(&root)) {
        Ok(timing) => timing,
        Err(error) => return check_error(&error, &text),
    };
    let mut rng = Pcg64Mcg::new(1);
    for step in Timing::STEPS {
        let delay = timing.step(step).expect("a step");
        assert!((0..16).all(|_| delay.sample(&mut rng) <= LONGEST_NS), "{step}: {delay:?}");
        assert!(delay.mean() >= 0.0, "{step}: {delay:?}");
    }
}
