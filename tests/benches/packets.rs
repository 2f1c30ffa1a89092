//! Connections in packets, against the same without packets.

use std::process::ExitCode;
use std::time::Instant;

use refault_bus::Iova;
use refault_nic::Loopback;
use refault_tests::bench::{Bench, Comparison, Target, timed};
use refault_tests::bench_rig::{Rig, SOURCE, TARGET};

/// Bytes of a stream.
const BUFFER: u64 = 1 << 20;

fn main() -> ExitCode {
    let mut bench = Bench::from_arguments();
    let rig = |loopback| {
        let rig = Rig::connected(8192, loopback);
        rig.map(SOURCE, BUFFER, false);
        rig.map(TARGET, BUFFER, false);
        rig
    };
    let mut packets = rig(Loopback::Packets { loss_ppm: 0 });
    let mut direct = rig(Loopback::Direct);
    for kib in [4, 64] {
        compare(
            &mut bench,
            &mut packets,
            &mut direct,
            &format!("one {kib} KiB RDMA WRITE from post to completion"),
            1,
            kib << 10,
        );
    }
    compare(
        &mut bench,
        &mut packets,
        &mut direct,
        "stream of 64 KiB RDMA WRITEs, 1 MiB in all",
        BUFFER >> 16,
        64 << 10,
    );
    frames(&mut packets);
    bench.finish()
}

fn compare(bench: &mut Bench, packets: &mut Rig, direct: &mut Rig, name: &str, requests: u64, length: u32) {
    let name = format!("{name}, in packets of 4 KiB, warm");
    bench.compare(
        Comparison { name: &name, baseline: "the same without packets", target: Target::None },
        &mut |count| timed(|| write(packets, count, requests, length)),
        &mut |count| timed(|| write(direct, count, requests, length)),
    );
}

fn write(rig: &mut Rig, count: u64, requests: u64, length: u32) {
    for _ in 0..count {
        if requests == 1 {
            rig.write_warm(Iova(SOURCE.0), Iova(TARGET.0), length);
        } else {
            rig.stream_warm((0..requests as usize).map(|index| index as u64 * u64::from(length)), length);
        }
    }
}

/// Prints how many frames a processor moves, acknowledgements included.
fn frames(rig: &mut Rig) {
    const STREAMS: u64 = 300;
    let sent = |rig: &Rig| rig.machine.nic.stats().packets;
    let (before, begun) = (sent(rig), Instant::now());
    write(rig, STREAMS, BUFFER >> 16, 64 << 10);
    let seconds = begun.elapsed().as_secs_f64();
    let (frames, mib) = ((sent(rig) - before) as f64, ((STREAMS * BUFFER) >> 20) as f64);
    println!(
        "such streams: {:.0} frames a second, {:.0} MiB a second, on one processor\n",
        frames / seconds,
        mib / seconds
    );
}
