//! Drives the NIC from user space, through VFIO, with the queue code of the model guest: what user-space drivers get.
//!
//! It takes the NIC away from its kernel driver, gives it to vfio-pci, maps its registers and some memory of this
//! process, moves data between two queue pairs and checks every byte. Then it asks VFIO to map other kinds of
//! memory, and shows what it says: VFIO pins what it maps, and the kernel does not pin files on DAX for long. In
//! the end the NIC is given back.

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
    /// Bytes of one transfer
    #[arg(long, value_name = "BYTES", default_value_t = 65536, value_parser = clap::value_parser!(u32).range(1..=1048576))]
    size: u32,
    /// Transfers in each direction
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10000000))]
    count: u64,
    /// Files whose mappings VFIO is asked to take, besides anonymous memory
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
    // Also after an error: whoever had the NIC before gets it back.
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
        pause: patience(),
        // Polled: no vector is wanted.
        vectors: (0, 0),
    };
    setup.function.config.enable();
    let driver = Driver::start(setup).context("the NIC cannot be set up")?;
    let moved = traffic::run(&driver, arguments.size, arguments.count)?;
    // Nothing may be under way when the memory goes.
    driver.reset().context("the NIC cannot be reset")?;
    print!("{moved}");
    ensure!(moved.wrong == 0, "{} bytes are wrong", moved.wrong);
    mappings::try_all(&device, &arguments.map)
}

/// A NIC that says nothing for so many polls is gone.
fn patience() -> Pause {
    Pause::new(|polls| {
        if polls % 256 == 255 {
            std::thread::yield_now();
        }
        polls < 1 << 32
    })
}
