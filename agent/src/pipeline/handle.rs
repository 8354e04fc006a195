//! How the rest of the daemon asks the pipeline for something: a bounded queue of commands, answered once durable.
//!
//! The queue is the only way in. A full queue is answered at once ([`SessionError::Unavailable`]); it never makes
//! the pipeline wait, and a caller that goes away costs nothing but its answer.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use agent_evidence::cosignature::WitnessKey;
use agent_evidence::record::EntryIndex;
use tokio::sync::oneshot;

use super::holds::{LookError, Looked, look};
use crate::export::sealed::SealedLog;
use crate::session::protocol::{
    Anchored, CommandStatus, OpenSession, Peer, PruneReport, SessionError, SessionInfo, SessionOpened, SessionService,
    SinkStatus, Status, WhoAmI,
};
use crate::tpm::TpmError;
use crate::tpm::worker::{Answer, Tell};
use crate::witness::submit::{self, Said};

/// Most commands that wait for the pipeline. It looks at them every few milliseconds; more than this at once
/// means somebody floods the control socket.
pub const COMMANDS_MAX: usize = 256;

/// Where an answer goes. Dropped without an answer when the pipeline ends.
pub type Reply<T> = oneshot::Sender<T>;

/// Everything that can be asked of the pipeline.
#[derive(Debug)]
pub enum Command {
    /// Open a session.
    Open(OpenSession, Reply<Result<SessionOpened, SessionError>>),
    /// Move a process into a session.
    Join(String, Peer, Reply<Result<(), SessionError>>),
    /// A session's command has ended.
    Ended(String, Peer, CommandStatus, Reply<Result<(), SessionError>>),
    /// The connection that opened a session has closed.
    OpenerGone(String),
    /// Revoke a session.
    Revoke(String, Peer, Reply<Result<(), SessionError>>),
    /// Exempt the session of this `issued` entry from pruning and erasure, or end that, for this reason.
    Hold(EntryIndex, bool, String, Peer, Reply<Result<(), SessionError>>),
    /// Erase the text of a value: index of its entry, field, why, and what was seen of holds on it.
    Erase(EntryIndex, String, String, Looked, Peer, Reply<Result<(), SessionError>>),
    /// Prune the entries before one: index, why, whether only to say what would go.
    Prune(EntryIndex, String, bool, Peer, Reply<Result<PruneReport, SessionError>>),
    /// List sessions.
    Sessions(Reply<Vec<SessionInfo>>),
    /// Whose process is this?
    Whoami(u32, Reply<Option<WhoAmI>>),
    /// What the daemon says of itself.
    Status(Reply<Status>),
    /// A witness has answered: to be recorded.
    WitnessSaid(Said, Reply<()>),
    /// Make an anchor, with this nonce if there is one; answered when a checkpoint covers it.
    Anchor(Option<Vec<u8>>, Reply<Result<Anchored, SessionError>>),
}

/// What wakes the pipeline besides its own timer: the closed list.
#[derive(Debug)]
pub enum Input {
    /// Somebody asks for something.
    Command(Command),
    /// The TPM has done what it was asked, or not.
    Tpm(Result<Answer, TpmError>),
    /// Stop in order: drain, record `disarmed`, seal.
    Shutdown,
}

/// Asks the sinks how far they are. The pipeline does not know them, and never waits for one.
pub type AskSinks = Arc<dyn Fn() -> Vec<SinkStatus> + Send + Sync>;

/// The asking side; clones share the queue.
#[derive(Clone)]
pub struct PipelineHandle {
    queue: SyncSender<Input>,
    sinks: AskSinks,
    log: SealedLog,
}

impl PipelineHandle {
    /// A handle that feeds `queue`, adds what `sinks` say to the status, and looks for holds in the pipeline's own log as a
    /// reader.
    #[must_use]
    pub fn new(queue: SyncSender<Input>, sinks: AskSinks, log: SealedLog) -> Self {
        Self { queue, sinks, log }
    }

    /// Asks the pipeline to stop in order. Waits for room in the queue: a stop must not get lost.
    pub fn shut_down(&self) {
        // An error says that the pipeline has ended already, which is what was asked for.
        drop(self.queue.send(Input::Shutdown));
    }

    /// How the TPM's thread gives its answers. It may wait for room; the pipeline never waits for it.
    #[must_use]
    pub fn tpm_answers(&self) -> Tell {
        let queue = self.queue.clone();
        Box::new(move |outcome| queue.send(Input::Tpm(outcome)).is_ok())
    }

    fn send(&self, command: Command) -> Result<(), SessionError> {
        self.queue.try_send(Input::Command(command)).map_err(|error| SessionError::Unavailable {
            why: match error {
                TrySendError::Full(_) => format!("{COMMANDS_MAX} requests are waiting; try again"),
                TrySendError::Disconnected(_) => "it is stopping".to_owned(),
            },
        })
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, SessionError> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply))?;
        answer
            .await
            .map_err(|_stopped| SessionError::Unavailable { why: "it stopped before it could answer".to_owned() })
    }
}

impl PipelineHandle {
    /// Has a witness's answer recorded; returns when the record is durable.
    ///
    /// # Errors
    /// [`SessionError::Unavailable`] when the pipeline is busy or stopping.
    pub async fn witness_said(&self, said: Said) -> Result<(), SessionError> {
        self.ask(|reply| Command::WitnessSaid(said, reply)).await
    }
}

/// An error with its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl SessionService for PipelineHandle {
    async fn open_session(&self, wish: OpenSession) -> Result<SessionOpened, SessionError> {
        self.ask(|reply| Command::Open(wish, reply)).await?
    }

    async fn join_session(&self, token: &str, peer: Peer) -> Result<(), SessionError> {
        let token = token.to_owned();
        self.ask(|reply| Command::Join(token, peer, reply)).await?
    }

    async fn command_ended(&self, id: &str, peer: Peer, status: CommandStatus) -> Result<(), SessionError> {
        let id = id.to_owned();
        self.ask(|reply| Command::Ended(id, peer, status, reply)).await?
    }

    async fn opener_gone(&self, id: &str) {
        // A queue that is full now would keep the session open for ever: wait for room, off the runtime's thread.
        let queue = self.queue.clone();
        let id = id.to_owned();
        let sent =
            tokio::task::spawn_blocking(move || queue.send(Input::Command(Command::OpenerGone(id))).is_ok()).await;
        if !matches!(sent, Ok(true)) {
            tracing::debug!("the pipeline stopped before it heard that a session's opener is gone");
        }
    }

    async fn revoke(&self, id: &str, peer: Peer) -> Result<(), SessionError> {
        let id = id.to_owned();
        self.ask(|reply| Command::Revoke(id, peer, reply)).await?
    }

    async fn hold(&self, session: u64, on: bool, reason: &str, peer: Peer) -> Result<(), SessionError> {
        let reason = reason.to_owned();
        self.ask(|reply| Command::Hold(EntryIndex(session), on, reason, peer, reply)).await?
    }

    async fn erase(&self, index: u64, field: &str, reason: &str, peer: Peer) -> Result<(), SessionError> {
        let (field, reason, of) = (field.to_owned(), reason.to_owned(), EntryIndex(index));
        let log = self.log.clone();
        let unavailable = |why: String| SessionError::Unavailable { why };
        let looked = tokio::task::spawn_blocking(move || look(&log, of)).await;
        let looked = looked.map_err(|_ended| unavailable("it is stopping".to_owned()))?;
        let looked = looked.map_err(|error| match &error {
            LookError::NotSealed(_) | LookError::Pruned(_) => SessionError::BadRequest { why: error.to_string() },
            LookError::Sealed(_) => unavailable(in_full(&error)),
        })?;
        self.ask(|reply| Command::Erase(of, field, reason, looked, peer, reply)).await?
    }

    async fn import_witness(&self, vkey: &str, note: &str) -> Result<(), SessionError> {
        let key =
            WitnessKey::parse(vkey).map_err(|error| SessionError::BadRequest { why: format!("vkey: {error}") })?;
        let (log, note) = (self.log.clone(), note.to_owned());
        // What the daemon itself finds to hold is what it records. The proof may need much of the log: off this thread.
        let said = tokio::task::spawn_blocking(move || {
            submit::import(log.directory(), &key, Path::new("the file"), note.as_bytes())
        });
        let said = said.await.map_err(|_ended| SessionError::Unavailable { why: "it is stopping".to_owned() })?;
        let said = said.map_err(|error| SessionError::BadRequest { why: in_full(&error) })?;
        self.witness_said(said).await
    }

    async fn prune(&self, before: u64, reason: &str, dry_run: bool, peer: Peer) -> Result<PruneReport, SessionError> {
        let reason = reason.to_owned();
        self.ask(|reply| Command::Prune(EntryIndex(before), reason, dry_run, peer, reply)).await?
    }

    async fn sessions(&self) -> Result<Vec<SessionInfo>, SessionError> {
        self.ask(Command::Sessions).await
    }

    async fn whoami(&self, pid: u32) -> Result<Option<WhoAmI>, SessionError> {
        self.ask(|reply| Command::Whoami(pid, reply)).await
    }

    async fn anchor(&self, nonce: Option<Vec<u8>>) -> Result<Anchored, SessionError> {
        self.ask(|reply| Command::Anchor(nonce, reply)).await?
    }

    async fn status(&self) -> Result<Status, SessionError> {
        let mut status = self.ask(Command::Status).await?;
        status.sinks = (self.sinks)();
        Ok(status)
    }
}
