//! `affiant config`: work on configuration files.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::cli::exit::{self, Exit};
use crate::cli::output::Output;
use crate::config::Config;

/// Prints a valid configuration as it takes effect.
///
/// # Errors
/// The file is refused, or standard output is gone.
pub fn check(file: &Path, json: bool, out: &mut Output) -> Result<u8, Exit> {
    let config = Config::load(file)?;
    if json {
        out.json(&config)?;
    } else {
        let text = config.to_toml().map_err(|error| Exit::new(exit::SOFTWARE, error))?;
        out.bytes(text.as_bytes())?;
    }
    Ok(0)
}
