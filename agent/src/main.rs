//! The `affiant` command.
fn main() {}
