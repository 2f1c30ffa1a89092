//! `refault lab`: reads scenarios from files and writes results to folders. The simulation is in [`refault_lab`].

pub mod cli;
pub mod folder;
mod matrix;
pub mod sweep;

/// Reads the files that the lab names.
pub(crate) fn read_file(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}
