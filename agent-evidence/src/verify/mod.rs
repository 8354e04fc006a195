//! Verification.
mod finding;
pub use finding::{Claim, FINDINGS, Finding};
