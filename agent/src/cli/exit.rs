//! Exit codes and the error that carries one.
//!
//! The codes are promised to scripts: sysexits.h where a code of it fits, the shell's convention
//! for commands that are run.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use crate::config::ConfigError;
use crate::session::client::ClientError;
use crate::session::protocol::SessionError;

/// Usage, or bad configuration (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// Input that cannot be used (`EX_DATAERR`).
pub const DATA: u8 = 65;
/// No daemon, or the kernel lacks something (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// An evidence fault, or our own (`EX_SOFTWARE`).
pub const SOFTWARE: u8 = 70;
/// Refused (`EX_NOPERM`).
pub const REFUSED: u8 = 77;
/// The command exists and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command does not exist.
pub const NOT_FOUND: u8 = 127;

/// Most causes that one message names.
const CAUSES_MAX: usize = 16;

/// Why a command ends early: what to print after `affiant: `, and the code.
#[derive(Debug)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    /// What to print; none: nothing (the reader of our output is gone).
    pub message: Option<String>,
}

impl Exit {
    /// An end with a message.
    pub fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: Some(message.to_string()) }
    }
}

impl Exit {
    /// An end with an error and its causes in one line. A cause that the text names already is not
    /// repeated.
    pub fn in_full(code: u8, error: &dyn std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        // Chains of causes are a few long; the bound keeps a faulty one from never ending.
        for _ in 0..CAUSES_MAX {
            let Some(error) = cause else { break };
            let words = error.to_string();
            if !text.contains(&words) {
                text.push_str(": ");
                text.push_str(&words);
            }
            cause = error.source();
        }
        Self::new(code, text)
    }
}

impl From<ConfigError> for Exit {
    fn from(error: ConfigError) -> Self {
        Self::new(USAGE, error)
    }
}

impl From<ClientError> for Exit {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::NoDaemon { .. }
            | ClientError::Broken(_)
            | ClientError::Closed
            | ClientError::Unreadable(_)
            | ClientError::Mismatch => UNAVAILABLE,
            ClientError::Failed(failed) => match failed {
                SessionError::Refused { .. }
                | SessionError::BadToken {}
                | SessionError::Ended { .. }
                | SessionError::TooMany { .. } => REFUSED,
                SessionError::BadRequest { .. } | SessionError::Unknown { .. } => USAGE,
                SessionError::Unavailable { .. } => UNAVAILABLE,
            },
        };
        Self::new(code, error)
    }
}

/// A failed write to standard output. A reader that went away (`| head`) has what it wanted.
impl From<io::Error> for Exit {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { code: 0, message: None };
        }
        Self::new(SOFTWARE, format!("cannot write: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Layer {
        #[error("cannot load the program")]
        Outer(#[source] Box<Self>),
        #[error("the kernel refuses: {0}")]
        Middle(#[source] Box<Self>),
        #[error("not permitted")]
        Inner,
    }

    #[test]
    fn every_cause_is_named_once() {
        let error = Layer::Outer(Box::new(Layer::Middle(Box::new(Layer::Inner))));
        let exit = Exit::in_full(UNAVAILABLE, &error);
        assert_eq!(exit.message.unwrap(), "cannot load the program: the kernel refuses: not permitted");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let exit = Exit::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((exit.code, exit.message), (0, None));
    }
}
