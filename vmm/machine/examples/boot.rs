//! Boots a kernel on a machine that has only serial ports, and optionally persistent memory.
//!
//! ```text
//! cargo run --example boot -- KERNEL INITRD "console=ttyS0" [PMEM-FILE]...
//! ```

use std::io::{stderr, stdout};
use std::path::PathBuf;

use refault_machine::config::{CpuModel, ExitReason, MachineConfig, PmemBacking, PmemConfig};
use refault_machine::{Consoles, Devices, KvmMachine};

fn main() -> anyhow::Result<()> {
    let start = std::time::Instant::now();
    let mut args = std::env::args().skip(1);
    let [Some(kernel), Some(initrd), Some(cmdline)] = [args.next(), args.next(), args.next()] else {
        anyhow::bail!("usage: boot KERNEL INITRD CMDLINE [PMEM-FILE]...");
    };
    let mut pmem = Vec::new();
    for file in args {
        let size = std::fs::metadata(&file)?.len();
        pmem.push(PmemConfig { backing: PmemBacking::Shared(file.into()), size });
    }
    let number =
        |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let config = MachineConfig {
        kernel: PathBuf::from(kernel),
        initrds: vec![initrd.into()],
        cmdline,
        cpus: number("CPUS", 1) as u8,
        memory: number("MEMORY", 512) << 20,
        pmem,
        cpu_model: if std::env::var("CPU").as_deref() == Ok("host") {
            CpuModel::Host
        } else {
            CpuModel::Baseline
        },
    };
    let consoles = Consoles { outputs: [Box::new(stdout()), Box::new(stderr()), Box::new(std::io::sink())] };
    let machine = KvmMachine::new(config, consoles, |_| Ok(Devices::default()))?;
    eprintln!("built after {} ms", start.elapsed().as_millis());
    let reason = machine.run()?;
    eprintln!("ended after {} ms: {reason:?}", start.elapsed().as_millis());
    if let ExitReason::Failed(text) = reason {
        anyhow::bail!(text);
    }
    Ok(())
}
