//! Warm DMA against plain memcpy of the same memory.

use std::process::ExitCode;
use std::sync::Arc;

use refault_bus::{Gpa, Iova};
use refault_tests::bench::{Bench, Comparison, Target, timed};
use refault_tests::bench_rig::{Rig, SOURCE, TARGET, slice};
use vm_memory::{GuestMemoryMmap, VolatileSlice};

/// Bytes of each buffer; both sides use all of it.
const BUFFER: u64 = 1 << 20;
/// Bytes of a page.
const PAGE: u64 = 4096;

fn main() -> ExitCode {
    let mut bench = Bench::from_arguments();
    for (gap, pages) in [(false, "neighbouring"), (true, "scattered")] {
        let rig = Rig::new(8192);
        let (from, to) = (rig.map(SOURCE, BUFFER, gap), rig.map(TARGET, BUFFER, gap));
        let mut frames = Frames { rig, from, to };
        for kib in [64, 256, 1024] {
            let name = format!("stream of {kib} KiB RDMA WRITEs, warm device TLB, {pages} pages");
            stream(&mut bench, &mut frames, &name, kib << 10);
        }
        for kib in [4, 64] {
            let name = format!("one {kib} KiB RDMA WRITE from post to completion, warm, {pages} pages");
            single(&mut bench, &mut frames, &name, kib << 10);
        }
    }
    bench.finish()
}

/// A machine, and the frames of its process' two buffers.
struct Frames {
    rig: Rig,
    from: Vec<Gpa>,
    to: Vec<Gpa>,
}

/// Writes the whole buffer in requests of `length`, posted together, which keeps the device busy.
fn stream(bench: &mut Bench, frames: &mut Frames, name: &str, length: u64) {
    let ram = frames.rig.machine.ram.clone();
    let copies = frames.copies(&ram, BUFFER);
    let rig = &mut frames.rig;
    bench.compare(
        Comparison { name, baseline: "memcpy between the same pages", target: Target::SpeedAtLeast(0.8) },
        &mut |count| {
            timed(|| {
                for _ in 0..count {
                    let requests = (BUFFER / length) as usize;
                    rig.stream_warm((0..requests).map(|index| index as u64 * length), length as u32);
                }
            })
        },
        &mut |count| timed(|| (0..count).for_each(|_| copy(&copies))),
    );
}

/// Writes `length` bytes, request by request.
fn single(bench: &mut Bench, frames: &mut Frames, name: &str, length: u64) {
    let ram = frames.rig.machine.ram.clone();
    let copies = frames.copies(&ram, length);
    let rig = &mut frames.rig;
    let target = if length == PAGE { Target::AtMost(12.0) } else { Target::None };
    bench.compare(
        Comparison { name, baseline: "memcpy between the same pages", target },
        &mut |count| {
            timed(|| (0..count).for_each(|_| rig.write_warm(Iova(SOURCE.0), Iova(TARGET.0), length as u32)))
        },
        &mut |count| timed(|| (0..count).for_each(|_| copy(&copies))),
    );
}

/// A copy that needs one call of memcpy.
type Piece<'a> = (VolatileSlice<'a>, VolatileSlice<'a>);

fn copy(pieces: &[Piece<'_>]) {
    pieces.iter().for_each(|(from, to)| from.copy_to_volatile_slice(*to));
}

impl Frames {
    /// The first `bytes` of both buffers, in as few pieces as adjacent pages allow.
    fn copies<'a>(&self, ram: &'a Arc<GuestMemoryMmap>, bytes: u64) -> Vec<Piece<'a>> {
        let neighbours = self.from[1].0 - self.from[0].0 == PAGE;
        let run = if neighbours { bytes } else { PAGE };
        let starts = (0..bytes / PAGE).step_by((run / PAGE) as usize).map(|page| page as usize);
        starts.map(|page| (slice(ram, self.from[page], run), slice(ram, self.to[page], run))).collect()
    }
}
