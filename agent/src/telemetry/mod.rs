//! The agent about itself: what it tells the service manager.

pub mod notify;
