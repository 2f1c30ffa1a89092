//! The `refault` command.

fn main() {}
