//! `refault lab`: experiments, sweeps and the matrix from files to folders. What happens in them is [`refault_lab`]'s.

pub mod cli;
pub mod folder;
mod matrix;
pub mod sweep;

/// Files, for what the lab reads by name.
pub(crate) fn read_file(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}
