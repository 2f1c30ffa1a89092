//! The `refault` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    refault_vmm::cli::main()
}
