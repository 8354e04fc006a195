//! Build, test and demonstration commands.
fn main() {}
