//! The commands: each reads its arguments, asks the daemon or the sealed log, and prints.

pub mod anchor;
pub mod args;
pub mod bundle;
pub mod clock;
pub mod config;
pub mod doctor;
pub mod duration;
pub mod enroll;
pub mod erase;
pub mod exit;
pub mod log;
pub mod output;
pub mod prove;
pub mod prune;
pub mod run;
pub mod session;
pub mod status;
pub mod tail;
pub mod timeline;
pub mod trust;
pub mod uninstall;
pub mod verify;
pub mod view;
pub mod witness;
