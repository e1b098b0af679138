//! The `sansprop` binary.
fn main() {}
