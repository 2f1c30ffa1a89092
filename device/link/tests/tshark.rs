//! tshark as a judge of what goes over the wire. `REFAULT_TSHARK` names another one than that of the path, such as
//! `chroot /srv/trixie tshark`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use refault_link::frames;
use refault_roce::{Opcode, frame};

#[path = "../examples/every_opcode.rs"]
#[expect(dead_code, reason = "it is a program, too")]
mod every_opcode;

/// The first version that knows FLUSH and ATOMIC WRITE.
const VERSION: [u32; 2] = [4, 4];

/// What it sees of a frame.
const FIELDS: [&str; 4] = ["frame.protocols", "infiniband.bth.opcode", "_ws.malformed", "_ws.expert.message"];

/// What it says of UDP by IPv6, where RoCE has no checksum either (annex A17; `prepare_udp_hdr` in rxe_net.c).
const ZERO_CHECKSUM: &str = "Illegal checksum value (0)";

/// tshark with these arguments and `input`; what it prints, or why it cannot be run.
fn tshark(arguments: &[&str], input: &[u8]) -> Result<String, String> {
    let command = std::env::var("REFAULT_TSHARK").unwrap_or_else(|_| "tshark".into());
    let mut words = command.split_whitespace();
    let mut child = Command::new(words.next().unwrap_or("tshark"))
        .args(words)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("{command}: {error}"))?;
    // It fits into the pipe, or is read while it is written.
    let mut pipe = child.stdin.take().ok_or("no pipe")?;
    // One that only tells its version does not read.
    let _ = pipe.write_all(input);
    drop(pipe);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{command}: {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `TShark (Wireshark) 4.4.19.` as numbers.
fn version(line: &str) -> Option<[u32; 2]> {
    let word = line.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let mut numbers = word.split('.').map_while(|part| part.parse().ok());
    Some([numbers.next()?, numbers.next()?])
}

/// Why there is no judge; `None` if there is one.
fn missing() -> Option<String> {
    let printed = match tshark(&["--version"], &[]) {
        Ok(printed) => printed,
        Err(reason) => return Some(reason),
    };
    let line = printed.lines().next().unwrap_or_default();
    let is_known = version(line).is_some_and(|version| version >= VERSION);
    (!is_known).then(|| format!("{line:?} is older than {}.{}", VERSION[0], VERSION[1]))
}

fn number(text: &str) -> Option<u8> {
    match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// How many packets there are of each opcode, by our own reader.
fn counts(capture: &[u8]) -> BTreeMap<u8, usize> {
    let mut counts = BTreeMap::new();
    for captured in frames(capture) {
        let received = frame::parse(captured.expect("our own capture").frame).expect("our own frame");
        *counts.entry(received.packet.opcode.to_byte()).or_default() += 1;
    }
    counts
}

#[test]
fn tshark_understands_every_opcode() {
    let mut capture = Vec::new();
    every_opcode::write(&mut capture).expect("memory");
    let expected = counts(&capture);
    assert_eq!(expected.len(), Opcode::all().count());
    if let Some(reason) = missing() {
        println!("skipped, because there is no tshark to ask: {reason}");
        return;
    }
    let fields = FIELDS.iter().flat_map(|field| ["-e", field]);
    let arguments: Vec<_> = ["-r", "-", "-T", "fields"].into_iter().chain(fields).collect();
    let printed = tshark(&arguments, &capture).expect("it dissects");
    let mut found: BTreeMap<u8, usize> = BTreeMap::new();
    for (line, text) in printed.lines().enumerate() {
        let parts: Vec<_> = text.split('\t').collect();
        let &[protocols, opcode, malformed, remarks] = &parts[..] else { panic!("{text}") };
        assert!(protocols.split(':').any(|name| name == "infiniband"), "frame {}: {protocols}", line + 1);
        assert_eq!(malformed, "", "frame {}, opcode {opcode}: malformed", line + 1);
        let known = |remark: &str| remark.starts_with("opcode 0x") || remark == ZERO_CHECKSUM;
        assert!(remarks.split(',').all(known), "frame {}, opcode {opcode}: {remarks}", line + 1);
        *found.entry(number(opcode).expect("an opcode")).or_default() += 1;
    }
    assert_eq!(found, expected);
}

#[test]
fn versions_are_read() {
    assert_eq!(version("TShark (Wireshark) 4.4.19."), Some([4, 4]));
    assert_eq!(
        version("TShark (Wireshark) 4.0.17 (Git v4.0.17 packaged as 4.0.17-0+deb12u1)."),
        Some([4, 0])
    );
    assert_eq!(version("no version"), None);
}
