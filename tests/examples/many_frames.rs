//! Gives the invariant of the fuzz target `roce_frame` as many frames as asked for, without libFuzzer's price for each:
//!
//! ```text
//! cargo run -p refault-tests --example many_frames -- [FRAMES [SEED]]
//! ```
//!
//! Half are frames of each opcode, over IPv4 and IPv6, with up to eight bytes changed, and often cut or made longer; half are
//! random bytes, some behind headers that are right. Prints the rate. What fails is named by its panic and by its number.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;
use std::{env, thread};

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::Rng;
use refault_roce::{Addresses, Envelope, FlushIcrc, Opcode, Packet, Psn, frame};
use refault_tests::fuzz::wire;

/// Bytes of payload of the frames that are changed.
const PAYLOADS: [usize; 4] = [0, 1, 8, 256];
/// Bytes before the base transport header, over IPv4.
const OUTER: usize = 42;
const LONGEST: usize = 400;

fn main() -> ExitCode {
    let mut words = env::args().skip(1).map(|word| word.replace('_', "").parse::<u64>());
    let (Ok(frames), Ok(seed)) = (words.next().unwrap_or(Ok(1_000_000)), words.next().unwrap_or(Ok(1)))
    else {
        eprintln!("usage: many_frames [FRAMES [SEED]]");
        return ExitCode::FAILURE;
    };
    let valid = valid_frames();
    let workers = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let begun = Instant::now();
    let good = thread::scope(|scope| {
        let run = |worker: u64| {
            let valid = &valid;
            scope.spawn(move || {
                (worker..frames).step_by(workers as usize).all(|number| one(valid, seed, number))
            })
        };
        let running: Vec<_> = (0..workers).map(run).collect();
        running.into_iter().all(|worker| worker.join().is_ok_and(|good| good))
    });
    if !good {
        return ExitCode::FAILURE;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{frames} frames, seed {seed}: none broke the invariant; {:.0} a second on {workers} threads",
        frames as f64 / seconds
    );
    ExitCode::SUCCESS
}

/// Each opcode with each payload that a frame can have, over both versions of IP.
fn valid_frames() -> Vec<Vec<u8>> {
    let v4 = Addresses::V4 { source: Ipv4Addr::new(10, 77, 0, 1), dest: Ipv4Addr::new(10, 77, 0, 2) };
    let v6 = Addresses::V6 { source: Ipv6Addr::LOCALHOST, dest: Ipv6Addr::LOCALHOST, flow_label: 1 };
    let mut frames = Vec::new();
    for (addresses, vlan) in [(v4, None), (v6, None), (v4, Some(7))] {
        let envelope = Envelope {
            source_mac: [2, 0, 0, 0, 0, 1],
            dest_mac: [2, 0, 0, 0, 0, 2],
            vlan,
            addresses,
            traffic_class: 0,
            hop_limit: 64,
            source_port: 0xc000,
        };
        for opcode in Opcode::all() {
            for payload in PAYLOADS {
                let packet = Packet::new(opcode, 17, Psn::new(5));
                let mut bytes = Vec::new();
                if frame::begin(&mut bytes, &envelope, &packet, payload).is_some()
                    && frame::seal(&mut bytes, FlushIcrc::Standard).is_ok()
                {
                    frames.push(bytes);
                }
            }
        }
    }
    frames
}

/// The frame with that number; `false` if it broke the invariant.
fn one(valid: &[Vec<u8>], seed: u64, number: u64) -> bool {
    let mut random = Pcg64Mcg::new(u128::from(seed) << 64 | u128::from(number));
    let mut below = |limit: usize| (random.next_u64() % limit as u64) as usize;
    let mut input = vec![below(2) as u8];
    let from = &valid[below(valid.len())];
    match below(4) {
        0 => input.extend((0..below(LONGEST)).map(|_| below(256) as u8)),
        1 => {
            input.extend_from_slice(&from[..OUTER.min(from.len())]);
            input.extend((0..below(LONGEST)).map(|_| below(256) as u8));
        }
        _ => {
            input.extend_from_slice(from);
            for _ in 0..below(9) {
                let at = 1 + below(from.len());
                input[at] = below(256) as u8;
            }
            match below(8) {
                0 => input.truncate(1 + below(from.len())),
                1 => input.extend((0..below(64)).map(|_| below(256) as u8)),
                _ => {}
            }
        }
    }
    let held = catch_unwind(AssertUnwindSafe(|| wire::run(&input))).is_ok();
    if !held {
        eprintln!("frame {number} of seed {seed}: {:02x?}", &input[1..]);
    }
    held
}
