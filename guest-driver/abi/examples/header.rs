//! Prints the C header: `cargo run -p refault-abi --example header`.

fn main() {
    print!("{}", refault_abi::c_header());
}
