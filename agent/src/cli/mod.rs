//! The commands: each reads its arguments, asks the daemon or the sealed log, and prints.

pub mod args;
pub mod duration;
pub mod exit;
pub mod output;
pub mod run;
