//! Drives the NIC from user space through VFIO, with the queue code of `refault-model`: the view of a user-space
//! driver.
//!
//! The program rebinds the NIC from its kernel driver to vfio-pci, maps its registers and some memory of this process,
//! transfers data between two queue pairs and checks every byte. Then it tries to map other kinds of memory and prints
//! the results: VFIO pins what it maps, and the kernel refuses long-term pins of files on DAX. Finally the NIC is bound
//! to its kernel driver again.

mod binding;
mod device;
mod mappings;
mod memory;
mod traffic;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use refault_model::Pause;
use refault_model::nic::{Driver, DriverSetup, PassThrough};

use binding::Binding;
use device::Device;
use memory::Memory;

/// Drives the refault NIC through VFIO: pinned memory, no kernel module of ours.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The NIC, such as 0000:00:03.0 [default: the first]
    #[arg(long, value_name = "ADDRESS")]
    device: Option<String>,
    /// Bytes per transfer
    #[arg(long, value_name = "BYTES", default_value_t = 65536, value_parser = clap::value_parser!(u32).range(1..=1048576))]
    size: u32,
    /// Transfers in each direction
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10000000))]
    count: u64,
    /// A file to map with VFIO, besides anonymous memory; may be repeated
    #[arg(long, value_name = "FILE")]
    map: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("refault-vfio: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let binding = Binding::take(arguments.device.as_deref())?;
    println!("{} is bound to vfio-pci, IOMMU group {}", binding.address(), binding.group()?);
    let result = with_device(&binding, arguments);
    // Also after an error: the kernel driver must get the NIC back.
    let returned = binding.give_back();
    result?;
    println!("{}", returned?);
    Ok(())
}

fn with_device(binding: &Binding, arguments: &Arguments) -> Result<()> {
    let device = Device::open(binding.folder())?;
    let memory = Memory::map(&device)?;
    println!("{} MiB of anonymous memory are mapped, and pinned", memory.bytes() >> 20);
    let setup = DriverSetup {
        function: device.function()?,
        memory: memory.frames().clone(),
        domain: Arc::new(PassThrough),
        pause: pause(),
        // Completions are polled: no interrupt vectors are needed.
        vectors: (0, 0),
    };
    setup.function.config.enable();
    let driver = Driver::start(setup).context("cannot initialise the NIC")?;
    let moved = traffic::run(&driver, arguments.size, arguments.count)?;
    // No DMA may be in flight when the memory is unmapped.
    driver.reset().context("cannot reset the NIC")?;
    print!("{moved}");
    ensure!(moved.wrong == 0, "{} bytes are wrong", moved.wrong);
    mappings::try_all(&device, &arguments.map)
}

/// Busy waiting that yields now and then, and times out after 2^32 polls.
fn pause() -> Pause {
    Pause::new(|polls| {
        if polls % 256 == 255 {
            std::thread::yield_now();
        }
        polls < 1 << 32
    })
}
