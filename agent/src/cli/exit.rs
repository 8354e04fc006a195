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
