//! The doorbell of a completion queue, which the device serves within the access. All CPUs that ring share one guard, so
//! what counts is how long one of them takes, against what it costs to get to the device at all.

use std::process::ExitCode;

use refault_tests::bench::{Bench, Comparison, Target, timed};
use refault_tests::machine::{Machine, MachineSetup};

fn main() -> ExitCode {
    let mut bench = Bench::from_arguments();
    let machine = Machine::new(MachineSetup::default());
    let session = machine.open(1);
    bench.compare(
        Comparison {
            name: "a completion queue armed, without the exit from the guest",
            baseline: "a system call that does nothing; an exit to the VMM is a return from one, and another call",
            target: Target::AtMost(0.5),
        },
        &mut |count| timed(|| (0..count).for_each(|_| session.completions.arm())),
        &mut |count| timed(|| (0..count).for_each(|_| call_the_kernel())),
    );
    bench.finish()
}

fn call_the_kernel() {
    std::hint::black_box(rustix::process::getppid());
}
