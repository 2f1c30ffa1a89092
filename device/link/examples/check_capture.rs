//! Verifies the ICRC of each RoCE packet in captures, and counts the opcodes:
//!
//! ```text
//! cargo run -p refault-link --example check_capture -- FILE...
//! ```
//!
//! Wireshark shows an ICRC and does not verify it. Exits with 1 if a packet is wrong.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::{env, fs};

use refault_link::frames;
use refault_roce::{Dropped, frame};

fn main() -> ExitCode {
    let mut is_right = true;
    for path in env::args().skip(1) {
        match fs::read(&path) {
            Ok(file) => is_right &= check(&path, &file),
            Err(error) => {
                eprintln!("{path}: {error}");
                is_right = false;
            }
        }
    }
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints what is in a capture; `false` if something is wrong with it.
fn check(path: &str, file: &[u8]) -> bool {
    let mut opcodes = BTreeMap::<u8, u64>::new();
    let (mut others, mut cut, mut wrong) = (0u64, 0u64, 0u64);
    for (captured, number) in frames(file).zip(1u64..) {
        let captured = match captured {
            Ok(captured) => captured,
            Err(error) => {
                eprintln!("{path}: {error}");
                wrong += 1;
                continue;
            }
        };
        if !captured.is_whole() {
            cut += 1;
            continue;
        }
        match frame::parse(captured.frame) {
            Ok(received) => *opcodes.entry(received.packet.opcode.to_byte()).or_default() += 1,
            Err(Dropped::NotRoce) => others += 1,
            Err(error) => {
                eprintln!("{path}: frame {number}: {error}");
                wrong += 1;
            }
        }
    }
    println!("{path}: {wrong} wrong, {others} not RoCE, {cut} not kept whole");
    for (opcode, count) in opcodes {
        println!("  opcode {opcode:#04x}: {count}");
    }
    wrong == 0
}
