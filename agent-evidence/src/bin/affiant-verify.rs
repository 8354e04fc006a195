//! The command `affiant-verify`.
fn main() {}
