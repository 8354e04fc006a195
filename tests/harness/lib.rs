//! Runs a real agent for a test, on its own state, and reads what it left.
//!
//! [`Host`] is one installation: its own configuration, state, run and pin directories and cgroup name, all of them removed when
//! it is dropped, so that tests and an agent already on the machine do not meet. [`Daemon`] is one run of the agent on it.
//! [`Swtpm`] is a TPM of a
//! test's own. [`Entry`] is one entry of the log as JSON: the harness does not use the project's own decoder, so a mistake in it cannot hide
//! itself. Nothing here sleeps for a fixed time in hope: every wait is for a condition and has a deadline.

#![forbid(unsafe_code)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test harness: deadlines by the clock, programs found by the environment, files moved about to do damage"
)]

mod bundles;
mod daemon;
mod entry;
mod gate;
mod host;
mod random;
mod stopwatch;
mod strace;
mod swtpm;
mod wait;

pub use bundles::{TreeDirectory, copy_directory};
pub use daemon::Daemon;
pub use entry::{Entry, Gap, entries_from_lines};
pub use gate::Gate;
pub use host::{
    Host, NOBODY, Session, Verdict, cgroup2_mount, output_text, program, python, repository, use_programs_in,
};
pub use random::Random;
pub use stopwatch::{nanoseconds_per_act, timed};
pub use strace::{Traced, strace, strace_version, traced};
pub use swtpm::{Commands, Swtpm};
pub use wait::{DEADLINE, until};
