//! The control socket's server: connections in, requests judged, the session service asked.
//!
//! Owns connections and their limits, no session state. Every input is an attacker's until the
//! kernel has named the peer and [`RunAuthorization`] has spoken. A slow, silent or hostile client
//! costs one bounded connection and no one else anything.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::session::authorization::RunAuthorization;
use crate::session::protocol::{
    LINE_SIZE_MAX, OpenSession, Peer, Reply, Request, SessionError, SessionInfo, SessionService, nonce_bytes,
};

/// Most connections at once. Each open session holds one, and `run.sessions_max` is at most 65,536
/// but 1,024 by default: twice that leaves room for questions.
const CONNECTIONS_MAX: usize = 2048;

/// Most connections at once of one user other than root, so that no user can take them all.
const CONNECTIONS_PER_UID_MAX: usize = 512;

/// How long a client may take for a request, and the daemon's socket buffer for an answer. A
/// connection that holds an open session waits without limit.
const TALK_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept: descriptors are short then, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another daemon answers there.
    #[error("another daemon listens on {0}; stop it first")]
    AlreadyServed(PathBuf),
    /// Something that is not a socket is in the way.
    #[error("{0} exists and is not a socket; remove it")]
    NotASocket(PathBuf),
    /// A step failed.
    #[error("cannot {step} {path}: {source}")]
    Io {
        /// The step.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes the socket's directory and binds the socket, taking away one that a dead daemon left.
///
/// Anyone may connect (mode 0666), since who may do what is decided by the kernel's word on the
/// peer; only root can replace the socket (directory mode 0755).
///
/// # Errors
/// Another daemon listens there, something else is in the way, or the system refuses.
pub fn bind(path: &Path) -> Result<UnixListener, ControlError> {
    let fail = |step, path: &Path| {
        let path = path.to_owned();
        move |source| ControlError::Io { step, path, source }
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(fail("make the directory", parent))?;
        std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o755))
            .map_err(fail("set the mode of", parent))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ControlError::NotASocket(path.to_owned()));
        }
        Ok(_) => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(ControlError::AlreadyServed(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(fail("remove the stale socket", path))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail("look at", path)(error)),
    }
    let listener = UnixListener::bind(path).map_err(fail("bind", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(fail("set the mode of", path))?;
    Ok(listener)
}

/// Serves connections until `shutdown` resolves; open connections are then dropped.
///
/// Never fails: what goes wrong with one connection ends that connection.
pub async fn serve<S: SessionService>(
    listener: UnixListener,
    service: S,
    authorization: RunAuthorization,
    shutdown: impl Future<Output = ()>,
) {
    let mut connections: JoinSet<u32> = JoinSet::new();
    let mut per_uid: HashMap<u32, usize> = HashMap::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                match ended {
                    Ok(uid) => release(&mut per_uid, uid),
                    // The count of a task that panicked is not given back: the user keeps one less.
                    Err(error) => tracing::error!(%error, "a control connection ended abnormally"),
                }
            }
            accepted = listener.accept() => {
                let stream = match accepted {
                    Ok((stream, _address)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept on the control socket");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let Ok(credentials) = stream.peer_cred() else { continue };
                let uid = credentials.uid();
                let open = per_uid.entry(uid).or_insert(0);
                if connections.len() >= CONNECTIONS_MAX || (uid != 0 && *open >= CONNECTIONS_PER_UID_MAX) {
                    tracing::warn!(uid, connections = connections.len(), "control connection refused: too many");
                    continue;
                }
                *open += 1;
                let connection = Connection::new(stream, service.clone(), authorization.clone());
                connections.spawn(async move {
                    connection.run().await;
                    uid
                });
            }
        }
    }
}

fn release(per_uid: &mut HashMap<u32, usize>, uid: u32) {
    if let Some(open) = per_uid.get_mut(&uid) {
        *open = open.saturating_sub(1);
        if *open == 0 {
            per_uid.remove(&uid);
        }
    }
}

struct Connection<S> {
    stream: UnixStream,
    service: S,
    authorization: RunAuthorization,
}

impl<S: SessionService> Connection<S> {
    fn new(stream: UnixStream, service: S, authorization: RunAuthorization) -> Self {
        Self { stream, service, authorization }
    }

    async fn run(self) {
        let Self { stream, service, authorization } = self;
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::debug!(%error, "control connection refused");
                return;
            }
        };
        let (read, write) = stream.into_split();
        let mut talk = Talk { service, authorization, peer, opened: None };
        talk.run(BufReader::new(read), write).await;
        // The lifeline: `affiant run` says how the command ended before it closes.
        if let Some(id) = talk.opened {
            talk.service.opener_gone(&id).await;
        }
    }
}

/// One conversation with one peer.
struct Talk<S> {
    service: S,
    authorization: RunAuthorization,
    peer: Peer,
    /// The session whose lifeline this connection is.
    opened: Option<String>,
}

impl<S: SessionService> Talk<S> {
    async fn run(&mut self, mut read: BufReader<OwnedReadHalf>, mut write: OwnedWriteHalf) {
        loop {
            let next = read_line(&mut read);
            let line = if self.opened.is_some() {
                next.await
            } else {
                match timeout(TALK_TIMEOUT, next).await {
                    Ok(line) => line,
                    Err(_elapsed) => return,
                }
            };
            let reply = match line {
                Ok(None) => return,
                Ok(Some(line)) => match Request::parse(&line) {
                    Ok(request) => self.answer(request).await,
                    Err(error) => Reply::Failed(error),
                },
                Err(LineError::TooLong) => Reply::Failed(SessionError::BadRequest {
                    why: format!("a line is longer than {LINE_SIZE_MAX} bytes"),
                }),
                Err(LineError::Io(error)) => {
                    tracing::debug!(%error, pid = self.peer.pid, "control connection lost");
                    return;
                }
            };
            let broken = matches!(&reply, Reply::Failed(SessionError::BadRequest { .. }));
            let sent = timeout(TALK_TIMEOUT, send(&mut write, &reply)).await;
            // After a broken line the rest cannot be trusted to be lines.
            if broken || !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    }

    async fn answer(&mut self, request: Request) -> Reply {
        self.try_answer(request).await.unwrap_or_else(Reply::Failed)
    }

    async fn try_answer(&mut self, request: Request) -> Result<Reply, SessionError> {
        match request {
            Request::Open { identity, task, ttl_ns, labels } => {
                if self.opened.is_some() {
                    return Err(SessionError::BadRequest {
                        why: "this connection has opened a session already".to_owned(),
                    });
                }
                let wish =
                    self.authorization.open(OpenSession { identity, task, ttl_ns, labels, peer: self.peer.clone() })?;
                let opened = self.service.open_session(wish).await?;
                self.opened = Some(opened.id.clone());
                Ok(Reply::Opened(opened))
            }
            Request::Join { token } => {
                self.service.join_session(&token, self.peer.clone()).await?;
                Ok(Reply::Done {})
            }
            Request::Ended { id, status } => {
                let own = self.opened.as_deref() == Some(id.as_str());
                if !own {
                    self.require_owner(&id).await?;
                }
                self.service.command_ended(&id, self.peer.clone(), status).await?;
                if own {
                    self.opened = None;
                }
                Ok(Reply::Done {})
            }
            Request::Sessions {} => {
                let mut sessions = self.service.sessions().await?;
                sessions.retain(|session| self.authorization.may_see(&self.peer, session.uid));
                Ok(Reply::Sessions(sessions))
            }
            Request::Revoke { id } => {
                self.require_owner(&id).await?;
                self.service.revoke(&id, self.peer.clone()).await?;
                Ok(Reply::Done {})
            }
            Request::Hold { session, on, reason } => {
                if self.peer.uid != 0 {
                    return Err(SessionError::Refused { why: "only root decides what is kept".to_owned() });
                }
                self.service.hold(session, on, &reason, self.peer.clone()).await?;
                Ok(Reply::Done {})
            }
            Request::Erase { index, field, reason } => {
                if self.peer.uid != 0 {
                    return Err(SessionError::Refused { why: "only root erases".to_owned() });
                }
                self.service.erase(index, &field, &reason, self.peer.clone()).await?;
                Ok(Reply::Done {})
            }
            Request::ImportWitness { vkey, note } => {
                if self.peer.uid != 0 {
                    return Err(SessionError::Refused {
                        why: "only root says which witnesses are believed".to_owned(),
                    });
                }
                self.service.import_witness(&vkey, &note).await?;
                Ok(Reply::Done {})
            }
            Request::Anchor { nonce } => {
                if self.peer.uid != 0 {
                    return Err(SessionError::Refused { why: "only root asks the TPM for something".to_owned() });
                }
                let nonce = nonce.as_deref().map(nonce_bytes).transpose()?;
                Ok(Reply::Anchored(Box::new(self.service.anchor(nonce).await?)))
            }
            Request::Prune { before, reason, dry_run } => {
                if self.peer.uid != 0 {
                    return Err(SessionError::Refused { why: "only root prunes".to_owned() });
                }
                Ok(Reply::Pruned(self.service.prune(before, &reason, dry_run, self.peer.clone()).await?))
            }
            Request::Whoami {} => Ok(Reply::Whoami(self.service.whoami(self.peer.pid).await?)),
            Request::Status {} => Ok(Reply::Status(Box::new(self.service.status().await?))),
        }
    }

    /// A session that the asker may not even see is unknown to it: ids of others do not leak.
    async fn require_owner(&self, id: &str) -> Result<(), SessionError> {
        let sessions = self.service.sessions().await?;
        let owner = |session: &&SessionInfo| session.id == id;
        match sessions.iter().find(owner) {
            Some(session) if self.authorization.may_revoke(&self.peer, session.uid) => Ok(()),
            Some(session) if self.authorization.may_see(&self.peer, session.uid) => {
                Err(SessionError::Refused { why: format!("session {id} belongs to uid {}", session.uid) })
            }
            _ => Err(SessionError::Unknown { id: id.to_owned() }),
        }
    }
}

enum LineError {
    TooLong,
    Io(io::Error),
}

/// Reads one line without its newline; none at the end of input. A last line without a newline is
/// not a line: its writer was cut off.
async fn read_line(read: &mut BufReader<OwnedReadHalf>) -> Result<Option<Vec<u8>>, LineError> {
    let mut line = Vec::new();
    let limit = u64::try_from(LINE_SIZE_MAX).unwrap_or(u64::MAX);
    read.take(limit).read_until(b'\n', &mut line).await.map_err(LineError::Io)?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        return Ok(Some(line));
    }
    if line.len() >= LINE_SIZE_MAX {
        return Err(LineError::TooLong);
    }
    Ok(None)
}

async fn send(write: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    if line.len() >= LINE_SIZE_MAX && !matches!(reply, Reply::Sessions(_)) {
        line = serde_json::to_vec(&Reply::Failed(SessionError::Unavailable {
            why: format!("the answer has {} bytes", line.len()),
        }))?;
    }
    line.push(b'\n');
    write.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::oneshot;

    use super::*;
    use crate::config;
    use crate::session::client::{Client, ClientError};
    use crate::session::protocol::{Anchored, CommandStatus, PruneReport, SessionOpened, SessionState, Status, WhoAmI};

    /// Remembers what it was asked and answers plainly.
    #[derive(Clone, Default)]
    struct Fake {
        asked: Arc<Mutex<Vec<String>>>,
        gone: Arc<tokio::sync::Notify>,
    }

    impl Fake {
        fn note(&self, what: String) {
            self.asked.lock().unwrap().push(what);
        }
    }

    impl SessionService for Fake {
        async fn open_session(&self, wish: OpenSession) -> Result<SessionOpened, SessionError> {
            self.note(format!("open {} {:?}", wish.identity.unwrap(), wish.ttl_ns));
            Ok(SessionOpened { id: "s1".into(), join_token: "t1".into(), entry: 5 })
        }
        async fn join_session(&self, token: &str, peer: Peer) -> Result<(), SessionError> {
            self.note(format!("join {token} same={}", peer.is_same_process()));
            if token == "t1" { Ok(()) } else { Err(SessionError::BadToken {}) }
        }
        async fn hold(&self, session: u64, on: bool, reason: &str, _: Peer) -> Result<(), SessionError> {
            self.note(format!("hold {session} {on} {reason}"));
            Ok(())
        }
        async fn command_ended(&self, id: &str, _: Peer, status: CommandStatus) -> Result<(), SessionError> {
            self.note(format!("ended {id} {:?}", status.code));
            Ok(())
        }
        async fn opener_gone(&self, id: &str) {
            self.note(format!("gone {id}"));
            self.gone.notify_one();
        }
        async fn revoke(&self, id: &str, _: Peer) -> Result<(), SessionError> {
            self.note(format!("revoke {id}"));
            Ok(())
        }
        async fn erase(&self, index: u64, field: &str, reason: &str, _: Peer) -> Result<(), SessionError> {
            self.note(format!("erase {index} {field}: {reason}"));
            Ok(())
        }
        async fn import_witness(&self, vkey: &str, note: &str) -> Result<(), SessionError> {
            self.note(format!("import {vkey} {note}"));
            Ok(())
        }
        async fn prune(&self, before: u64, reason: &str, dry_run: bool, _: Peer) -> Result<PruneReport, SessionError> {
            self.note(format!("prune {before} {dry_run}: {reason}"));
            Ok(PruneReport { first: before, ..PruneReport::default() })
        }
        async fn sessions(&self) -> Result<Vec<SessionInfo>, SessionError> {
            Ok(vec![SessionInfo {
                id: "s1".into(),
                identity: "spiffe://local/x".into(),
                task: None,
                labels: Vec::new(),
                uid: 0,
                entry: 5,
                cgroup: None,
                issued_wall_ns: 1,
                expires_in_ns: None,
                state: SessionState::Running,
            }])
        }
        async fn whoami(&self, pid: u32) -> Result<Option<WhoAmI>, SessionError> {
            Ok(Some(WhoAmI {
                session: None,
                identity: format!("pid {pid}"),
                cgroup: 1,
                established_how: "test".into(),
            }))
        }
        async fn anchor(&self, nonce: Option<Vec<u8>>) -> Result<Anchored, SessionError> {
            self.note(format!("anchor {nonce:?}"));
            Err(SessionError::Unavailable { why: "test".into() })
        }
        async fn status(&self) -> Result<Status, SessionError> {
            Ok(Status {
                version: "0".into(),
                pid: 1,
                uptime_ns: 0,
                origin: "o".into(),
                trust_tier: "T0".into(),
                hook_tier: "tracepoint".into(),
                resumed: false,
                hooks: Vec::new(),
                not_covered: Vec::new(),
                epoch: Some(1),
                entries: 1,
                sealed: 1,
                log_size: None,
                sessions: 0,
                classes: Vec::new(),
                tpm: None,
                storage: crate::session::protocol::StorageStatus::default(),
                retention: crate::session::protocol::RetentionStatus::default(),
                sinks: Vec::new(),
            })
        }
    }

    struct Daemon {
        fake: Fake,
        path: PathBuf,
        _directory: tempfile::TempDir,
        _stop: oneshot::Sender<()>,
    }

    /// The tests run as any user: whoever runs them is allowed.
    fn daemon() -> Daemon {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/control.sock");
        let listener = bind(&path).unwrap();
        let fake = Fake::default();
        let (stop, stopped) = oneshot::channel();
        let (read, _write) = std::os::unix::net::UnixStream::pair().unwrap();
        let me = UnixStream::from_std({
            read.set_nonblocking(true).unwrap();
            read
        })
        .unwrap();
        let run = config::Run { allow_uids: vec![me.peer_cred().unwrap().uid()], ..config::Run::default() };
        let rules = RunAuthorization::new(run, None);
        let service = fake.clone();
        tokio::spawn(serve(listener, service, rules, async {
            let _ = stopped.await;
        }));
        Daemon { fake, path, _directory: directory, _stop: stop }
    }

    async fn ask(path: &Path, requests: Vec<Request>) -> Vec<Result<Reply, ClientError>> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut client = Client::connect(&path).unwrap();
            requests.iter().map(|request| client.ask(request)).collect()
        })
        .await
        .unwrap()
    }

    fn open() -> Request {
        Request::Open { identity: None, task: None, ttl_ns: Some(7), labels: Vec::new() }
    }

    #[tokio::test]
    async fn open_join_and_end_reach_the_service_in_order() {
        let daemon = daemon();
        let replies = ask(
            &daemon.path,
            vec![
                open(),
                Request::Join { token: "t1".into() },
                Request::Ended { id: "s1".into(), status: CommandStatus { code: Some(3), signal: None } },
            ],
        )
        .await;
        assert!(matches!(&replies[0], Ok(Reply::Opened(opened)) if opened.entry == 5));
        assert!(matches!(&replies[1], Ok(Reply::Done {})));
        assert!(matches!(&replies[2], Ok(Reply::Done {})));
        let asked = daemon.fake.asked.lock().unwrap().clone();
        assert_eq!(asked[0], format!("open spiffe://local/user/{}/run Some(7)", uid()));
        assert_eq!(asked[1..], ["join t1 same=true", "ended s1 Some(3)"]);
    }

    fn uid() -> u32 {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata("/proc/self").unwrap().uid()
    }

    #[tokio::test]
    async fn a_connection_that_closes_without_ended_tells_the_service() {
        let daemon = daemon();
        ask(&daemon.path, vec![open()]).await;
        daemon.fake.gone.notified().await;
        assert_eq!(daemon.fake.asked.lock().unwrap().last().unwrap(), "gone s1");
    }

    #[tokio::test]
    async fn a_second_open_on_one_connection_is_a_bad_request() {
        let daemon = daemon();
        let replies = ask(&daemon.path, vec![open(), open()]).await;
        assert!(matches!(&replies[1], Err(ClientError::Failed(SessionError::BadRequest { .. }))));
    }

    #[tokio::test]
    async fn a_wrong_token_and_an_unknown_session_say_so() {
        let daemon = daemon();
        let replies =
            ask(&daemon.path, vec![Request::Join { token: "no".into() }, Request::Revoke { id: "s9".into() }]).await;
        assert!(matches!(&replies[0], Err(ClientError::Failed(SessionError::BadToken {}))));
        assert!(matches!(&replies[1], Err(ClientError::Failed(SessionError::Unknown { id })) if id == "s9"));
    }

    #[tokio::test]
    async fn whoami_is_answered_for_the_peer_and_no_other() {
        let daemon = daemon();
        let replies = ask(&daemon.path, vec![Request::Whoami {}]).await;
        let Ok(Reply::Whoami(Some(whoami))) = &replies[0] else { panic!("{replies:?}") };
        assert_eq!(whoami.identity, format!("pid {}", std::process::id()));
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused_and_the_next_client_is_served() {
        let daemon = daemon();
        let mut stream = UnixStream::connect(&daemon.path).await.unwrap();
        stream.write_all(&vec![b'x'; LINE_SIZE_MAX]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("longer than 65536 bytes"), "{answer}");
        let replies = ask(&daemon.path, vec![Request::Status {}]).await;
        assert!(matches!(&replies[0], Ok(Reply::Status(_))));
    }

    #[tokio::test]
    async fn a_second_daemon_is_refused_and_a_stale_socket_is_replaced() {
        let daemon = daemon();
        assert!(matches!(bind(&daemon.path), Err(ControlError::AlreadyServed(_))));
        let stale = daemon.path.with_file_name("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        assert!(bind(&stale).is_ok());
        let plain = daemon.path.with_file_name("plain");
        std::fs::write(&plain, "").unwrap();
        assert!(matches!(bind(&plain), Err(ControlError::NotASocket(_))));
    }
}
