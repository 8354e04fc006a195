//! How long the acts of a helper program took, measured inside it, so that its start is not in the number.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// Runs `acts` and writes one line to standard output: how many there were, and the nanoseconds they took together.
pub fn timed(count: u64, acts: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    acts()?;
    let nanoseconds = start.elapsed().as_nanos();
    writeln!(std::io::stdout(), "{count} acts in {nanoseconds} ns").context("cannot write the time")
}

/// Nanoseconds per act from the line that [`timed`] wrote, if it is there.
#[must_use]
pub fn nanoseconds_per_act(output: &str) -> Option<f64> {
    let line = output.lines().find(|line| line.ends_with(" ns") && line.contains(" acts in "))?;
    let (count, rest) = line.split_once(" acts in ")?;
    let count: f64 = count.parse().ok()?;
    let total: f64 = rest.strip_suffix(" ns")?.parse().ok()?;
    (count > 0.0).then_some(total / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_among_others() {
        assert_eq!(nanoseconds_per_act("hello\n4 acts in 100 ns\n"), Some(25.0));
        assert_eq!(nanoseconds_per_act("hello\n"), None);
        assert_eq!(nanoseconds_per_act("0 acts in 100 ns\n"), None);
    }
}
