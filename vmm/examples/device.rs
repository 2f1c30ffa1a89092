//! As `boot`, with the IOMMU and the NIC: shows what a guest's own drivers make of them.

use std::io::{stderr, stdout};
use std::path::PathBuf;

use refault_vmm::config::{CpuModel, MachineConfig, PmemBacking, PmemConfig};
use refault_vmm::machine::{Consoles, Machine};
use refault_vmm::wiring::{DeviceOptions, devices};

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(stderr).init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, initrd, cmdline] = args.as_slice() else { anyhow::bail!("usage: device KERNEL INITRD CMDLINE") };
    let config = MachineConfig {
        kernel: PathBuf::from(kernel),
        initrds: vec![initrd.into()],
        cmdline: cmdline.clone(),
        cpus: 2,
        memory: 1 << 30,
        pmem: vec![PmemConfig { backing: PmemBacking::Anonymous, size: 256 << 20 }],
        cpu_model: CpuModel::Baseline,
    };
    let consoles = Consoles { outputs: [Box::new(stdout()), Box::new(stdout()), Box::new(std::io::sink())] };
    let mut wired = None;
    let machine = Machine::new(config, consoles, |parts| {
        let (devices, parts) = devices(parts, DeviceOptions::default())?;
        wired = Some(parts);
        Ok(devices)
    })?;
    let reason = machine.run()?;
    if let Some(wired) = wired {
        eprintln!("{:?}\n{:?}", wired.iommu.statistics(), wired.nic.stats());
    }
    eprintln!("ended: {reason:?}");
    Ok(())
}
