//! Waiting for a condition with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The longest anything in a test may take. Far above what a loaded two-core machine needs, so that only a hang meets it.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Time between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks until `look` gives a value; an error that names `what` after [`DEADLINE`].
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if start.elapsed() > DEADLINE {
            bail!("waited {} s in vain: {what}", DEADLINE.as_secs());
        }
        thread::sleep(INTERVAL);
    }
}
