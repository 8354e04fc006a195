//! The control socket's client: one blocking connection, one question at a time.
//!
//! Blocking on purpose: `affiant run` and the short commands have nothing else to do meanwhile.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::session::protocol::{Reply, Request, SessionError};

/// How long an answer may take. Opening a session waits for a durable record, which takes as long
/// as the disk does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an answer may take for which the log is read: an hour for some thousand million entries.
const PATIENT_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Largest answer, in bytes: `sessions` with 1,024 sessions of full size has no more.
const ANSWER_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens there.
    #[error("no daemon answers on {path} ({source}); start it with `affiant daemon`")]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke: {0}")]
    Broken(#[source] io::Error),
    /// The daemon closed without an answer.
    #[error("the daemon closed the connection without an answer")]
    Closed,
    /// What came is not an answer.
    #[error("the daemon's answer cannot be read ({0}); is it of another version?")]
    Unreadable(#[source] serde_json::Error),
    /// An answer to another question.
    #[error("the daemon answered another question; is it of another version?")]
    Mismatch,
    /// The daemon says no.
    #[error(transparent)]
    Failed(#[from] SessionError),
}

/// A connection to the daemon. Dropping the one that opened a session ends that session once its
/// cgroup is empty.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to a control socket.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`] when nothing listens.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let no_daemon = |source| ClientError::NoDaemon { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(no_daemon)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(no_daemon)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(no_daemon)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Waits for answers that take the daemon as long as it takes to read the log.
    ///
    /// # Errors
    /// The system refuses.
    pub fn patient(self) -> Result<Self, ClientError> {
        self.stream.get_ref().set_read_timeout(Some(PATIENT_TIMEOUT)).map_err(ClientError::Broken)?;
        Ok(self)
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// The request breaks a limit, the connection broke, or the daemon says no.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        request.check()?;
        let mut line = serde_json::to_vec(request).map_err(ClientError::Unreadable)?;
        line.push(b'\n');
        let patience = if matches!(request, Request::Erase { .. }) { PATIENT_TIMEOUT } else { ANSWER_TIMEOUT };
        self.stream.get_mut().set_read_timeout(Some(patience)).map_err(ClientError::Broken)?;
        self.stream.get_mut().write_all(&line).map_err(ClientError::Broken)?;
        let mut answer = Vec::new();
        (&mut self.stream).take(ANSWER_SIZE_MAX).read_until(b'\n', &mut answer).map_err(ClientError::Broken)?;
        if answer.last() != Some(&b'\n') {
            return Err(ClientError::Closed);
        }
        match serde_json::from_slice(&answer).map_err(ClientError::Unreadable)? {
            Reply::Failed(error) => Err(ClientError::Failed(error)),
            reply => Ok(reply),
        }
    }
}
