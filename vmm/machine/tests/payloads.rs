//! Machines that run a few instructions in place of a kernel: the results of exits, stops and interrupts.
//!
//! The payloads use no instruction that a KVM without hardware support cannot emulate, so they run wherever /dev/kvm opens.
//! Where it does not, the tests print that and pass.

mod support;

use std::time::{Duration, Instant};

use refault_machine::config::ExitReason;
use support::{Payload, run, start};

/// `mov dx, port`, `mov al, value`, `out dx, al`.
fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

/// `hlt`, and a jump back to it.
const HALT: [u8; 3] = [0xf4, 0xeb, 0xfd];
/// `jmp` to itself.
const SPIN: [u8; 2] = [0xeb, 0xfe];

#[test]
fn power_off_ends_the_machine_with_its_output_written() {
    let text = b"hello".iter().flat_map(|&byte| out(0x3f8, byte));
    let Some(end) = run(Payload::new(text.chain(out(0x600, 0x34)).chain(HALT))) else { return };
    assert_eq!((end.reason, end.outputs[0].as_slice()), (ExitReason::PowerOff, &b"hello"[..]));
}

#[test]
fn every_serial_port_has_its_own_output() {
    let code = [out(0x3f8, b'a'), out(0x2f8, b'b'), out(0x3e8, b'c'), out(0x600, 0x34)].concat();
    let Some(end) = run(Payload::new(code)) else { return };
    assert_eq!(end.outputs, [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
}

#[test]
fn every_way_to_reset_resets() {
    for (port, value) in [(0xcf9, 0x06), (0xcf9, 0x0e), (0x64, 0xfe)] {
        let Some(end) = run(Payload::new(out(port, value).into_iter().chain(HALT))) else { return };
        assert_eq!(end.reason, ExitReason::Reset, "{port:#x}");
    }
}

#[test]
fn a_crash_without_handlers_is_a_triple_fault() {
    // `ud2`, with an empty interrupt table.
    let Some(end) = run(Payload::new([0x0f, 0x0b])) else { return };
    assert_eq!(end.reason, ExitReason::TripleFault);
}

#[test]
fn a_spinning_guest_stops_within_a_second() {
    for code in [&SPIN[..], &HALT] {
        let Some(running) = start(Payload::new(out(0x3f8, b'!').into_iter().chain(code.iter().copied())))
        else {
            return;
        };
        running.wait_for_output(0, b"!");
        let asked = Instant::now();
        running.handle.stop();
        let end = running.join();
        assert_eq!(end.reason, ExitReason::Stopped);
        assert!(asked.elapsed() < Duration::from_secs(1), "took {:?}", asked.elapsed());
    }
}

#[test]
fn a_machine_stopped_before_it_runs_does_not_run() {
    let Some(running) = start(Payload::new(SPIN).stopped()) else { return };
    assert_eq!(running.join().reason, ExitReason::Stopped);
}

#[test]
fn input_reaches_the_guest_that_polls_for_it() {
    // Wait for bit 0 of the line status, read the byte, write it back, ten times, power off:
    //   mov ecx, 10
    // next: mov dx, 0x3fd
    // wait: in al, dx / test al, 1 / jz wait
    //   mov dx, 0x3f8 / in al, dx / out dx, al
    //   dec ecx / jnz next
    let mut code = vec![0xb9, 10, 0, 0, 0];
    code.extend([0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xfb]);
    code.extend([0x66, 0xba, 0xf8, 0x03, 0xec, 0xee, 0xff, 0xc9, 0x75, 0xeb]);
    code.extend(out(0x600, 0x34));
    let Some(running) = start(Payload::new(code)) else { return };
    running.handle.inject(0, b"0123");
    running.handle.inject(0, b"456789");
    running.handle.inject(7, b"nobody");
    let end = running.join();
    assert_eq!((end.reason, end.outputs[0].as_slice()), (ExitReason::PowerOff, &b"0123456789"[..]));
}

#[test]
fn config_space_answers_through_its_window() {
    // mov eax, [abs 0xe000_0000] / mov dx, 0x3f8 / out dx, al / shr eax, 8 / out dx, al
    let mut code = vec![0xb9, 0, 0, 0, 0xe0, 0x8b, 0x01, 0x66, 0xba, 0xf8, 0x03, 0xee, 0xc1, 0xe8, 8, 0xee];
    code.extend(out(0x600, 0x34));
    let Some(end) = run(Payload::new(code)) else { return };
    assert_eq!(end.outputs[0], refault_abi::regs::PCI_VENDOR_ID.to_le_bytes());
}

#[test]
fn unmapped_memory_reads_as_ones() {
    let mut code = vec![0xb9, 0, 0, 0, 0xf0, 0x8b, 0x01, 0x66, 0xba, 0xf8, 0x03, 0xee];
    code.extend(out(0x600, 0x34));
    let Some(end) = run(Payload::new(code)) else { return };
    assert_eq!(end.outputs[0], [0xff]);
}
